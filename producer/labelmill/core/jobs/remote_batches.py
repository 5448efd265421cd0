"""When another remote batch is begun for a batch that runs in Mistral's Batch API: by producers and workers alike.

A remote batch starts as a row in the step `packing`; a worker then chooses its rows. A batch has one in that step at a
time, so that no two choose the same rows.
"""

from __future__ import annotations

import secrets

from sqlalchemy import ColumnElement, exists, insert, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.states import ChunkState, Mode, RemoteStep
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import OPEN_CHUNK, BatchRow, ChunkRow, RemoteBatchRow, RemoteChunkRow
from labelmill.core.jobs.tables import is_runnable

#: Steps in which a remote batch holds rows.
HOLDS_ROWS = (RemoteStep.PACKING, RemoteStep.UPLOADING, RemoteStep.CREATING, RemoteStep.WAITING, RemoteStep.READING)


def begin_remote_batch(engine: Engine, batch_id: str) -> int | None:
    """Begin the batch's next remote batch. Returns its number; None: it needs none now."""
    with reading(engine) as connection:  # most often it needs none, and no lock to wait for
        if _batch_that_needs_one(connection, batch_id) is None:
            return None
    with writing(engine) as connection:
        if dialect_of(connection).locks_rows:
            connection.execute(select(BatchRow.no).where(BatchRow.id == batch_id).with_for_update())
        batch_no = _batch_that_needs_one(connection, batch_id)
        if batch_no is None:
            return None
        values = {"batch_no": batch_no, "step": RemoteStep.PACKING.value, "marker": secrets.token_hex(12)}
        row = insert(RemoteBatchRow).values(**values, begun_at=db_now(), next_look_at=db_now())
        row = row.returning(RemoteBatchRow.no)
        return int(connection.execute(row).scalar_one())


def holds_rows() -> ColumnElement[bool]:
    """The remote batch has rows that no other one may take."""
    return RemoteBatchRow.step.in_([step.value for step in HOLDS_ROWS])


def remote_batches_of(engine: Engine, batch_id: str) -> list[int]:
    """The remote batches that hold rows of a batch."""
    of_batch = RemoteBatchRow.batch_no == select(BatchRow.no).where(BatchRow.id == batch_id).scalar_subquery()
    with reading(engine) as connection:
        return list(connection.scalars(select(RemoteBatchRow.no).where(of_batch, holds_rows())))


def is_unheld() -> ColumnElement[bool]:
    """The chunk may be packed: it is pending, and no remote batch holds it."""
    holder = RemoteChunkRow.__table__.alias().c
    same = (holder.batch_no == ChunkRow.batch_no) & (holder.number == ChunkRow.number)
    held = exists().where(same, holder.remote_no.is_not(None)).correlate(ChunkRow)
    return (ChunkRow.state == ChunkState.PENDING.value) & OPEN_CHUNK & (ChunkRow.number >= 0) & ~held


def _batch_that_needs_one(connection: Connection, batch_id: str) -> int | None:
    batch = connection.execute(
        select(BatchRow.no).where(
            BatchRow.id == batch_id,
            is_runnable(BatchRow),
            BatchRow.runs_in == Mode.BATCH.value,
            BatchRow.stopping.is_(None),
        )
    ).first()
    if batch is None:
        return None
    of_batch = RemoteBatchRow.batch_no == batch.no
    if connection.scalar(select(exists().where(of_batch, RemoteBatchRow.step == RemoteStep.PACKING.value))):
        return None
    if connection.scalar(select(exists().where(of_batch, holds_rows()))) and is_on_trial(connection, batch.no):
        return None
    chunk = select(ChunkRow.number).where(ChunkRow.batch_no == batch.no, is_unheld()).limit(1)
    return int(batch.no) if connection.scalar(chunk) is not None else None


def is_on_trial(connection: Connection, batch_no: int) -> bool:
    """Whether remote batches of a batch were read and none of its rows was answered: the next one is a small one alone,
    for it is likely to be refused as well."""
    of_batch = RemoteBatchRow.batch_no == batch_no
    was_refused = exists().where(of_batch, ~holds_rows(), RemoteBatchRow.refused_lists > 0)
    answered = exists().where(ChunkRow.batch_no == batch_no, ChunkRow.labelled + ChunkRow.abstained > 0)
    return bool(connection.scalar(select(was_refused & ~answered)))
