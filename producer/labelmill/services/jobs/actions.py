"""Cancelling a job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.errors import BrokerUnavailable, InvalidInput
from labelmill.contracts.field_names import Notice
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import KINDS
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.states import BatchState, State, Stopping, TrainingState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import BatchRow, RemoteBatchRow, TrainingRow
from labelmill.core.jobs.dispatch import send_remote_batch
from labelmill.core.jobs.inner_batches import cancel_inner_batches
from labelmill.core.jobs.remote_batches import holds_rows, remote_batches_of
from labelmill.core.jobs.tables import TABLE_OF, is_open, is_runnable
from labelmill.core.jobs.transitions import move_job
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import no_job
from labelmill.services.jobs.requests import JobRequest


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
