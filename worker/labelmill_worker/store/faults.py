"""Unforeseen faults: counted where they happen, under the claim, until the work makes progress. After `MAX_FAULTS` the
work fails with a reason instead of being retried for ever."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import Permanent
from labelmill.core.database import writing
from labelmill.core.database.tables import ChunkRow
from labelmill.core.jobs import chunk_transitions, events, leases
from labelmill.core.jobs.tables import JobTable, is_open
from labelmill_worker.store.chunks import Claim

MAX_FAULTS = 5
_MAX_PAUSE_S = 60.0


class UnforeseenFault(Permanent):
    """The `count`th unforeseen fault in a row. Only its type is reported: its text could hold anything."""

    code = "unexpected"

    def __init__(self, fault: BaseException, count: int) -> None:
        times = f", {count} times" if count > 1 else ""
        super().__init__(f"unexpected fault: {type(fault).__name__}{times}; the workers' logs have the details")
        self.count = count

    @property
    def is_last(self) -> bool:
        """Whether the work is to be given up."""
        return self.count >= MAX_FAULTS

    @property
    def pause_s(self) -> float:
        """When to try again."""
        return min(_MAX_PAUSE_S, 2.0**self.count)


def record_job_fault(engine: Engine, table: JobTable, job_id: str, token: str, fault: BaseException) -> UnforeseenFault:
    """Count a fault under the job's lease, which stays. Without the lease nothing is written: another has the job."""
    held = (table.id == job_id) & leases.is_held(table, token) & is_open(table)
    with writing(engine) as connection:
        unforeseen = _count(connection, table, held, fault)
        if unforeseen is not None:
            events.note(connection, job_id, unforeseen.message)
    return unforeseen or UnforeseenFault(fault, 1)


def record_chunk_fault(engine: Engine, claim: Claim, fault: BaseException) -> UnforeseenFault:
    """Count a fault under a chunk's claim, and release the chunk. Without the claim nothing is written."""
    of_chunk = (claim.batch_no, claim.number, claim.token)
    with writing(engine) as connection:
        unforeseen = _count(connection, ChunkRow, chunk_transitions.is_claimed(*of_chunk), fault)
        if unforeseen is None:
            return UnforeseenFault(fault, 1)
        chunk_transitions.release(connection, *of_chunk, wait_s=unforeseen.pause_s, counts=True)
        events.note(connection, claim.batch_id, unforeseen.message, chunk=claim.number)
    return unforeseen


def _count(
    connection: Connection, table: Any, held: ColumnElement[bool], fault: BaseException
) -> UnforeseenFault | None:
    count = connection.scalar(update(table).where(held).values(faults=table.faults + 1).returning(table.faults))
    return None if count is None else UnforeseenFault(fault, count)
