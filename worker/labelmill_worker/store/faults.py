"""Faults nobody foresaw: counted in `events`, and after some the job ends with a reason instead of looping for ever."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.database import writing
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.messages import ChunkMessage, JobMessage
from labelmill.contracts.states import BatchState, ChunkState, DatasetState, EvaluationState
from labelmill.contracts.tables import BatchRow, ChunkRow, DatasetRow, EvaluationRow, EventRow, utc_now
from labelmill_worker.store.jobs import add_event

GIVE_UP_AFTER = 5
_PREFIX = "unexpected fault: "


def record_fault(engine: Engine, message: JobMessage, fault: BaseException) -> None:
    """Note the fault; at the fifth of a job (of a chunk, for a batch) end the job as failed.

    A training is never given up here: it may be spending money at Mistral, and its own time-outs end it.
    """
    # the type alone: an unforeseen fault's words could hold anything
    note = f"{_PREFIX}{type(fault).__name__}"
    chunk = message.chunk if isinstance(message, ChunkMessage) else None
    with writing(engine) as connection:
        add_event(connection, message.job_id, note, chunk=chunk)
        same = [EventRow.job_id == message.job_id, EventRow.message.startswith(_PREFIX)]
        if chunk is not None:
            same.append(EventRow.chunk == chunk)
        count = connection.scalar(select(func.count()).select_from(EventRow).where(*same)) or 0
        if count >= GIVE_UP_AFTER:
            _end(connection, message.job_id, chunk, f"{note}, {count} times; the workers' logs have the details")


_OPEN: dict[Kind, tuple[type[DatasetRow | EvaluationRow | BatchRow], list[str], str]] = {
    Kind.DATASET: (
        DatasetRow,
        [DatasetState.QUEUED.value, DatasetState.PREPARING.value],
        DatasetState.FAILED.value,
    ),
    Kind.EVALUATION: (
        EvaluationRow,
        [EvaluationState.QUEUED.value, EvaluationState.RUNNING.value],
        EvaluationState.FAILED.value,
    ),
    Kind.BATCH: (BatchRow, [BatchState.QUEUED.value, BatchState.RUNNING.value], BatchState.FAILED.value),
}


def _end(connection: Connection, job_id: str, chunk: int | None, reason: str) -> None:
    kind = kind_of(job_id)
    if kind is None or kind not in _OPEN:
        return
    if chunk is not None:
        batch_no = select(BatchRow.no).where(BatchRow.id == job_id).scalar_subquery()
        connection.execute(
            update(ChunkRow)
            .where(ChunkRow.batch_no == batch_no, ChunkRow.number == chunk)
            .where(ChunkRow.state == ChunkState.CLAIMED.value)
            .values(state=ChunkState.FAILED.value, lease_token=None, lease_until=None)
        )
    table, open_states, failed = _OPEN[kind]
    values = {"state": failed, "finished_at": utc_now(), "error": reason, "error_code": "unexpected"}
    if table is not BatchRow:
        values |= {"lease_token": None, "lease_until": None}
    statement = update(table).where(table.id == job_id, table.state.in_(open_states)).values(values)
    if connection.execute(statement).rowcount:
        add_event(connection, job_id, reason, state=failed, chunk=chunk)
