"""What a person does to a job under way: cancel it, run its failed rows again."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import BATCH, KINDS
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.states import BatchState, ChunkState, State, TrainingState
from labelmill.core.database import writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    IndexedChunkRow,
    RowErrorRow,
    TrainingRow,
)
from labelmill.core.jobs import chunk_transitions
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.jobs.inner_batches import cancel_inner_batches
from labelmill.core.jobs.tables import is_open
from labelmill.core.jobs.transitions import move_job
from labelmill.core.queue.sender import MessageSender, accepted
from labelmill.services.jobs.documents import status_document
from labelmill.services.submissions.keys import SUBMISSION_BROKEN


def cancel(engine: Engine, sender: MessageSender, job_id: str) -> None:
    """Stop a job; a batch's idempotency key is free then. Raises NotFound, InvalidInput when it has ended or cannot be
    stopped."""
    kind = kind_of(job_id)
    with writing(engine) as connection:
        if kind is None:
            raise NotFound(f"no job has the id {shown(job_id)}; `labelmill status` lists the latest")
        cancelled = KINDS[kind].cancelled
        if cancelled is None:
            raise InvalidInput(f"a {kind.value} cannot be cancelled: {KINDS[kind].why_not_cancelled}")
        is_training = kind is Kind.TRAINING
        done = _cancel_training(connection, job_id) if is_training else _end(connection, job_id, cancelled)
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
    if _end(connection, job_id, TrainingState.CANCELLED, nothing_at_mistral):
        return True
    statement = (
        update(TrainingRow)
        .where(TrainingRow.id == job_id, is_open(TrainingRow))
        .values(cancel_requested=True, next_look_at=0)
    )
    return bool(connection.execute(statement).rowcount)


def _end(connection: Connection, job_id: str, cancelled: State, *conditions: ColumnElement[bool]) -> bool:
    """End a job as cancelled, and its batches with it. Its lease is taken away: no worker may write to it any more."""
    if not move_job(connection, job_id, cancelled, *conditions, message="cancelled by a person"):
        return False
    cancel_inner_batches(connection, job_id, f"cancelled with {job_id}")
    return True


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
        if batch.state not in BATCH.retried_from:
            raise InvalidInput(
                f"{job_id} is {batch.state}: only a batch that completed, failed or is paused is retried"
            )
        mine = ChunkRow.batch_no == batch.no
        to_run = or_(ChunkRow.failed > 0, ChunkRow.state != ChunkState.DONE.value)
        if batch.started_at is None and batch.error_code in (InvalidInput.code, SUBMISSION_BROKEN):
            raise InvalidInput(f"{job_id} failed at submission: submit it again")
        if connection.scalar(select(ChunkRow.number).where(mine, to_run).limit(1)) is None:
            raise InvalidInput(f"{job_id} has no failed row")
        if not move_job(
            connection, job_id, BatchState.RUNNING, old=BatchState(batch.state), message="failed rows are run again"
        ):
            raise InvalidInput(f"{job_id} is being retried by somebody else")
        chunk_transitions.run_again(connection, mine & to_run)
        connection.execute(delete(RowErrorRow).where(RowErrorRow.batch_no == batch.no))
        # what these rows will be answered is to be found by later batches too
        run_again = select(ChunkRow.number).where(mine, ChunkRow.state == ChunkState.PENDING.value)
        connection.execute(
            delete(IndexedChunkRow).where(IndexedChunkRow.batch_no == batch.no, IndexedChunkRow.number.in_(run_again))
        )
    with accepted(job_id, warn):
        dispatch_batch(engine, sender, job_id)
