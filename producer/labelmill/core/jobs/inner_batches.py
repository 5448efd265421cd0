"""Inner batches: those that a training or an evaluation runs for itself. They are cancelled when that job ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.ids import kind_of
from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.job_kinds import BATCH, KINDS, TRAINING
from labelmill.contracts.states import BatchState
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.core.jobs.transitions import move_job


def cancel_inner_batches(connection: Connection, job_id: str, why: str, *, keep_ended: bool = False) -> list[str]:
    """Cancel the job's batches that have not ended: none of their requests is sent any more. `why` is the message of
    their events; `keep_ended`: leave those as they are that are paused, for the job may be retried. Returns the ids of
    the cancelled batches.

    To be called in the transaction that ends the job, after the job's row was written: its lock keeps a worker from
    opening another batch meanwhile.
    """
    old = BATCH.open if keep_ended else None
    return [
        batch_id
        for batch_id in _batches_of(connection, job_id)
        if move_job(connection, batch_id, BatchState.CANCELLED, old=old, message=why)
    ]


def named_batches_of(details: Mapping[str, Any] | None, batch_id: str | None) -> dict[str, str]:
    """The batches of a training, by what they are for. `details`, `batch_id`: of its row."""
    batches: dict[str, str] | None = (details or {}).get("batches")
    if batches is None and batch_id is not None:
        return {VECTORS: batch_id}  # an earlier Labelmill's training had one batch
    return batches or {}


def _batches_of(connection: Connection, job_id: str) -> list[str]:
    kind = kind_of(job_id)
    if kind is None or not (names := KINDS[kind].inner_batches):
        return []
    table = TABLE_OF[kind]
    row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().one()
    ids = [row[name] for name in names]
    if kind is TRAINING.kind:
        ids += named_batches_of(row["details"], row["batch_id"]).values()  # of which only the latest has a column
    return [batch_id for batch_id in dict.fromkeys(ids) if batch_id]
