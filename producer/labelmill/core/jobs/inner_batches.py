"""The batches that a training or an evaluation runs for itself: they end with the job that they are for."""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.states import BatchState, open_states
from labelmill.core.database.tables import BatchRow, EvaluationRow, EventRow, TrainingRow, utc_now

_OPEN = [*open_states(BatchState), BatchState.PAUSED.value]


def cancel_inner_batches(connection: Connection, job_id: str, why: str) -> None:
    """Stop the job's batches that have not ended: nothing more of them is sent. `why` goes to their history.

    To be called in the transaction that ends the job, after the job's row was written: its lock keeps a worker from
    opening another batch meanwhile.
    """
    for batch_id in _batches_of(connection, job_id):
        stopped = (
            update(BatchRow)
            .where(BatchRow.id == batch_id, BatchRow.state.in_(_OPEN))
            .values(state=BatchState.CANCELLED.value, finished_at=utc_now())
        )
        if connection.execute(stopped).rowcount:
            event = {"job_id": batch_id, "at": utc_now(), "state": BatchState.CANCELLED.value, "message": why}
            connection.execute(insert(EventRow).values(event))


def _batches_of(connection: Connection, job_id: str) -> list[str]:
    kind = kind_of(job_id)
    if kind is Kind.EVALUATION:
        columns = select(EvaluationRow.batch_id, EvaluationRow.calibration_batch_id).where(EvaluationRow.id == job_id)
        return [batch_id for batch_id in connection.execute(columns).one() if batch_id]
    if kind is Kind.TRAINING:
        batch_id = connection.scalar(select(TrainingRow.batch_id).where(TrainingRow.id == job_id))
        return [batch_id] if batch_id else []
    return []
