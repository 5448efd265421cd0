"""Inner batches: those that a training or an evaluation runs for itself. They are cancelled when that job ends."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.ids import kind_of
from labelmill.contracts.job_kinds import KINDS
from labelmill.contracts.states import BatchState
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.core.jobs.transitions import move_job


def cancel_inner_batches(connection: Connection, job_id: str, why: str) -> list[str]:
    """Cancel the job's batches that have not ended: none of their requests is sent any more. `why` is the message of
    their events. Returns the ids of the cancelled batches.

    To be called in the transaction that ends the job, after the job's row was written: its lock keeps a worker from
    opening another batch meanwhile.
    """
    return [
        batch_id
        for batch_id in _batches_of(connection, job_id)
        if move_job(connection, batch_id, BatchState.CANCELLED, message=why)
    ]


def _batches_of(connection: Connection, job_id: str) -> list[str]:
    kind = kind_of(job_id)
    if kind is None or not (names := KINDS[kind].inner_batches):
        return []
    table = TABLE_OF[kind]
    ids = connection.execute(select(*(getattr(table, name) for name in names)).where(table.id == job_id)).one()
    return [batch_id for batch_id in ids if batch_id]
