"""What a person does to a job under way: cancel it, run its failed rows again."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, delete, insert, or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.states import BatchState, ChunkState, EvaluationState, TrainingState, open_states
from labelmill.core.database import writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    EvaluationRow,
    EventRow,
    IndexedChunkRow,
    RowErrorRow,
    TrainingRow,
    utc_now,
)
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.jobs.inner_batches import cancel_inner_batches
from labelmill.core.queue.sender import MessageSender, accepted
from labelmill.services.jobs.documents import status_document
from labelmill.services.submissions.keys import SUBMISSION_BROKEN

_BATCH_OPEN = [*open_states(BatchState), BatchState.PAUSED.value]
_CANCELLED = "cancelled"  #: In every kind of job.
_RETRYABLE = [BatchState.COMPLETED.value, BatchState.FAILED.value, BatchState.PAUSED.value]


def cancel(engine: Engine, sender: MessageSender, job_id: str) -> None:
    """Stop a job; a batch's idempotency key is free then. Raises NotFound, InvalidInput when it has ended or cannot be
    stopped."""
    kind = kind_of(job_id)
    with writing(engine) as connection:
        if kind is Kind.BATCH:
            done = _end(connection, BatchRow, job_id, BatchRow.state.in_(_BATCH_OPEN))
        elif kind is Kind.EVALUATION:
            done = _end(connection, EvaluationRow, job_id, EvaluationRow.state.in_(open_states(EvaluationState)))
        elif kind is Kind.TRAINING:
            done = _cancel_training(connection, job_id)
        elif kind is Kind.DATASET:
            raise InvalidInput("a dataset cannot be cancelled: it costs nothing and ends by itself")
        else:
            raise NotFound(f"no job has the id {shown(job_id)}; `labelmill status` lists the latest")
        if not done:
            state = status_document(connection, job_id)["state"]
            raise InvalidInput(f"{job_id} is {state}: there is nothing left to cancel")
    if kind is Kind.TRAINING:
        try:
            sender.send(TRAIN, [JobMessage(job_id=job_id)])
        except BrokerUnavailable:
            pass  # the worker sees the wish at its next look


def _cancel_training(connection: Connection, job_id: str) -> bool:
    """End it, or ask for it where something may be under way at Mistral: the worker that looks next stops the job
    there and records the end."""
    nothing_at_mistral = or_(TrainingRow.method != "factory", TrainingRow.state == TrainingState.QUEUED.value)
    if _end(connection, TrainingRow, job_id, TrainingRow.state.in_(open_states(TrainingState)), nothing_at_mistral):
        return True
    statement = (
        update(TrainingRow)
        .where(TrainingRow.id == job_id, TrainingRow.state.in_(open_states(TrainingState)))
        .values(cancel_requested=True, next_look_at=0)
    )
    return bool(connection.execute(statement).rowcount)


def _end(
    connection: Connection,
    table: type[BatchRow | EvaluationRow | TrainingRow],
    job_id: str,
    *conditions: ColumnElement[bool],
) -> bool:
    """End a job as cancelled, and its batches with it. Its lease is taken away: no worker may write to it any more."""
    values = {"state": _CANCELLED, "finished_at": utc_now()}
    if table is not BatchRow:
        values |= {"lease_token": None, "lease_until": None, "next_look_at": None}
    if not connection.execute(update(table).where(table.id == job_id, *conditions).values(values)).rowcount:
        return False
    _add_event(connection, job_id, _CANCELLED, "cancelled by a person")
    cancel_inner_batches(connection, job_id, f"cancelled with {job_id}")
    return True


def _add_event(connection: Connection, job_id: str, state: str, message: str) -> None:
    event = {"job_id": job_id, "at": utc_now(), "state": state, "message": message}
    connection.execute(insert(EventRow).values(event))


def retry(engine: Engine, sender: MessageSender, job_id: str, warn: Callable[[str], None] = lambda _: None) -> None:
    """Run the failed and unanswered rows of a batch again. Raises NotFound, InvalidInput."""
    if kind_of(job_id) is not Kind.BATCH:
        raise NotFound(f"no batch has the id {shown(job_id)}")
    with writing(engine) as connection:
        batch = connection.execute(
            select(BatchRow.no, BatchRow.state, BatchRow.error_code, BatchRow.started_at).where(BatchRow.id == job_id)
        ).first()
        if batch is None:
            raise NotFound(f"no batch has the id {shown(job_id)}")
        if batch.state not in _RETRYABLE:
            raise InvalidInput(
                f"{job_id} is {batch.state}: only a batch that completed, failed or is paused is retried"
            )
        mine = ChunkRow.batch_no == batch.no
        to_run = or_(ChunkRow.failed > 0, ChunkRow.state != ChunkState.DONE.value)
        if batch.started_at is None and batch.error_code in (InvalidInput.code, SUBMISSION_BROKEN):
            raise InvalidInput(f"{job_id} failed at submission: submit it again")
        if connection.scalar(select(ChunkRow.number).where(mine, to_run).limit(1)) is None:
            raise InvalidInput(f"{job_id} has no failed row")
        runs_again = connection.execute(
            update(BatchRow)
            .where(BatchRow.no == batch.no, BatchRow.state == batch.state)
            .values(state=BatchState.RUNNING.value, finished_at=None, error=None, error_code=None)
        ).rowcount
        if not runs_again:
            raise InvalidInput(f"{job_id} is being retried by somebody else")
        # a chunk that a worker of the stopped batch still holds is taken from it: its errors go, so must its counts
        connection.execute(
            update(ChunkRow)
            .where(mine, to_run)
            .values(
                state=ChunkState.PENDING.value,
                failed=0,
                attempts=0,
                faults=0,
                sent_at=None,
                lease_token=None,
                lease_until=None,
            )
        )
        connection.execute(delete(RowErrorRow).where(RowErrorRow.batch_no == batch.no))
        # what these rows will be answered is to be found by later batches too
        run_again = select(ChunkRow.number).where(mine, ChunkRow.state == ChunkState.PENDING.value)
        connection.execute(
            delete(IndexedChunkRow).where(IndexedChunkRow.batch_no == batch.no, IndexedChunkRow.number.in_(run_again))
        )
        _add_event(connection, job_id, BatchState.RUNNING.value, "failed rows are run again")
    with accepted(job_id, warn):
        dispatch_batch(engine, sender, job_id)
