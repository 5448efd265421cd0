"""Cancelling a job, and retrying the failed rows of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, or_, select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound
from labelmill.contracts.field_names import Notice
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import BATCH, KINDS
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.states import BatchState, ChunkState, State, Stopping, TrainingState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    IndexedChunkRow,
    ModelRow,
    RemoteBatchRow,
    RemoteChunkRow,
    RowErrorRow,
    TrainingRow,
)
from labelmill.core.jobs import chunk_transitions
from labelmill.core.jobs.dispatch import send_remote_batch
from labelmill.core.jobs.inner_batches import cancel_inner_batches
from labelmill.core.jobs.remote_batches import holds_rows, remote_batches_of
from labelmill.core.jobs.tables import TABLE_OF, is_open, is_runnable
from labelmill.core.jobs.transitions import move_job
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import no_job
from labelmill.services.jobs.requests import JobRequest, RetryRequest
from labelmill.services.submissions.accepted import Accepted, Submitted, start
from labelmill.services.submissions.caps import check_max_cost, models_asked
from labelmill.services.submissions.keys import SUBMISSION_BROKEN


@dataclass(frozen=True)
class Cancelled:
    """A job that was cancelled. `state`: a training at Mistral goes on until a worker has stopped it there."""

    id: str
    kind: Kind
    state: str
    warnings: tuple[Notice, ...] = ()


def cancel(context: ServiceContext, request: JobRequest) -> Cancelled:
    """Stop a job; a batch's idempotency key is free then. Raises NotFound, InvalidInput when it has ended or cannot be
    stopped."""
    job_id = request.job_id
    kind = kind_of(job_id)
    with writing(context.engine) as connection:
        if kind is None:
            raise no_job(job_id)
        cancelled = KINDS[kind].cancelled
        if cancelled is None:
            raise InvalidInput(f"a {kind.value} cannot be cancelled: {KINDS[kind].why_not_cancelled}", field="job_id")
        done = _CANCEL[kind](connection, job_id) if kind in _CANCEL else _end(connection, job_id, cancelled)
        state = connection.scalar(select(TABLE_OF[kind].state).where(TABLE_OF[kind].id == job_id))
        if state is None:
            raise no_job(job_id)
        if not done:
            raise InvalidInput(f"{job_id} is {state}: there is nothing left to cancel", field="job_id")
    with contextlib.suppress(BrokerUnavailable):  # a worker sees it when it polls next
        if kind is Kind.TRAINING:
            context.sender.send(TRAIN, [JobMessage(job_id=job_id)])
        elif kind is Kind.BATCH and state != cancelled:
            for number in remote_batches_of(context.engine, job_id):
                send_remote_batch(context.sender, number)
    return Cancelled(job_id, kind, state)


def _cancel_training(connection: Connection, job_id: str) -> bool:
    """End the training, or request its end where a job may be running at Mistral: the worker that polls next stops the
    job there and records the end."""
    nothing_at_mistral = or_(TrainingRow.method != "factory", TrainingRow.state == TrainingState.QUEUED.value)
    if _end(connection, job_id, TrainingState.CANCELLED, nothing_at_mistral):
        return True
    statement = (
        update(TrainingRow)
        .where(TrainingRow.id == job_id, is_open(TrainingRow))
        .values(cancel_requested=True, next_look_at=0)
    )
    return bool(connection.execute(statement).rowcount)


def _cancel_batch(connection: Connection, job_id: str) -> bool:
    """End the batch, or request its end where remote batches hold rows of it: workers stop those at Mistral and record
    what they were answered, then the end."""
    held = exists().where(RemoteBatchRow.batch_no == BatchRow.no, holds_rows())
    if _end(connection, job_id, BatchState.CANCELLED, ~held):
        return True
    # also one that is on its way to realtime
    statement = update(BatchRow).where(BatchRow.id == job_id, is_runnable(BatchRow)).values(stopping=Stopping.CANCEL)
    if not connection.execute(statement).rowcount:
        return _end(connection, job_id, BatchState.CANCELLED)  # a paused one: workers stop its remote batches already
    batch_no = select(BatchRow.no).where(BatchRow.id == job_id).scalar_subquery()
    due = update(RemoteBatchRow).where(RemoteBatchRow.batch_no == batch_no, holds_rows())
    connection.execute(due.values(next_look_at=db_now()))
    return True


def _end(connection: Connection, job_id: str, cancelled: State, *conditions: ColumnElement[bool]) -> bool:
    """End a job as cancelled, with its inner batches. Its lease is taken away: no worker may write to it any more."""
    if not move_job(connection, job_id, cancelled, *conditions, message="cancelled by a person"):
        return False
    cancel_inner_batches(connection, job_id, f"cancelled with {job_id}")
    return True


_CANCEL: dict[Kind, Callable[[Connection, str], bool]] = {Kind.TRAINING: _cancel_training, Kind.BATCH: _cancel_batch}


def retry(context: ServiceContext, request: RetryRequest) -> Submitted:
    """Run the failed and unanswered rows of a batch again, under another cap if one is named. Raises NotFound,
    InvalidInput."""
    job_id = request.job_id
    if kind_of(job_id) is not Kind.BATCH:
        raise NotFound(f"no batch has the id {shown(job_id)}")
    with writing(context.engine) as connection:
        batch = connection.execute(
            select(
                BatchRow.no,
                BatchRow.state,
                BatchRow.error_code,
                BatchRow.started_at,
                BatchRow.purging,
                BatchRow.model_no,
            ).where(BatchRow.id == job_id)
        ).first()
        if batch is None or batch.purging:
            raise NotFound(f"no batch has the id {shown(job_id)}")
        if batch.state not in BATCH.retried_from:
            raise InvalidInput(
                f"{job_id} is {batch.state}: only a batch that completed, failed or is paused is retried",
                field="job_id",
            )
        of_batch = ChunkRow.batch_no == batch.no
        to_run = or_(ChunkRow.failed > 0, ChunkRow.state != ChunkState.DONE.value)
        if batch.started_at is None and batch.error_code in (InvalidInput.code, SUBMISSION_BROKEN):
            raise InvalidInput(f"{job_id} failed at submission: submit it again", field="job_id")
        changes: dict[str, Any] = {}
        if request.max_cost is not None:
            model = connection.execute(select(ModelRow.__table__).where(ModelRow.no == batch.model_no)).mappings().one()
            check_max_cost(request.max_cost, models_asked(ModelRow(**model)), context.prices)
            changes["max_cost"] = request.max_cost
        if connection.scalar(select(ChunkRow.number).where(of_batch, to_run).limit(1)) is None:
            raise InvalidInput(f"{job_id} has no failed row", field="job_id")
        if not move_job(
            connection,
            job_id,
            BatchState.RUNNING,
            BatchRow.purging.is_(False),
            old=BatchState(batch.state),
            message="failed rows are run again",
            stopping=None,
            **changes,
        ):
            raise InvalidInput(f"{job_id} is being retried by another command", field="job_id")
        chunk_transitions.run_again(connection, of_batch & to_run)
        # rows get their tries anew
        connection.execute(update(RemoteChunkRow).where(RemoteChunkRow.batch_no == batch.no).values(failures=None))
        connection.execute(delete(RowErrorRow).where(RowErrorRow.batch_no == batch.no))
        # the new answers of these rows must be added to the cache too
        run_again = select(ChunkRow.number).where(of_batch, ChunkRow.state == ChunkState.PENDING.value)
        connection.execute(
            delete(IndexedChunkRow).where(IndexedChunkRow.batch_no == batch.no, IndexedChunkRow.number.in_(run_again))
        )
    return start(context, Accepted(job_id, Kind.BATCH, BatchState.RUNNING.value))
