"""Retrying a job: a batch runs its failed and unanswered rows again; a training or an evaluation that failed goes on
from what is kept of it, the answers and vectors of its own batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, exists, func, or_, select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.amounts import written
from labelmill.contracts.errors import InvalidInput, MonthlyLimitReached
from labelmill.contracts.field_names import Notice, named
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import BATCH, EVALUATION, TRAINING
from labelmill.contracts.specs import TrainSpec
from labelmill.contracts.states import BatchState, ChunkState, EvaluationState, TrainingState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    IndexedChunkRow,
    ModelRow,
    RemoteChunkRow,
    RowErrorRow,
)
from labelmill.core.jobs import chunk_transitions
from labelmill.core.jobs.inner_batches import named_batches_of
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.core.jobs.transitions import move_job
from labelmill.core.money.ledger import costs_of_jobs
from labelmill.core.money.prices import PriceList
from labelmill.core.reported_limits import forget_month
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import no_job
from labelmill.services.jobs.requests import RetryRequest
from labelmill.services.submissions.accepted import Accepted, Submitted, start
from labelmill.services.submissions.caps import check_max_cost, models_asked, models_of_training
from labelmill.services.submissions.keys import SUBMISSION_BROKEN

_GOES_ON = "goes on where it stopped"


def retry(context: ServiceContext, request: RetryRequest) -> Submitted:
    """Let a job that ended go on, under another cap if one is named. Raises NotFound, InvalidInput."""
    kind = kind_of(request.job_id)
    if kind is None:
        raise no_job(request.job_id)
    with writing(context.engine) as connection:
        if kind not in _RETRY:
            _read(connection, kind, request.job_id)
            raise InvalidInput(f"a {kind.value} is not retried: submit it again", field="job_id")
        accepted = _RETRY[kind](connection, request, context.prices)
    return start(context, accepted)


def _retry_batch(connection: Connection, request: RetryRequest, prices: PriceList) -> Accepted:
    job_id = request.job_id
    batch = _read(connection, Kind.BATCH, job_id)
    if batch["purging"]:
        raise no_job(job_id)
    if batch["owner_id"] is not None:
        raise InvalidInput(f"{job_id} runs for {batch['owner_id']}: retry that instead", field="job_id")
    if batch["state"] not in BATCH.retried_from:
        raise InvalidInput(
            f"{job_id} is {batch['state']}: only a batch that completed, failed or is paused is retried",
            field="job_id",
        )
    if batch["started_at"] is None and batch["error_code"] in (InvalidInput.code, SUBMISSION_BROKEN):
        raise InvalidInput(f"{job_id} failed at submission: submit it again", field="job_id")
    changes: dict[str, Any] = {}
    if request.max_cost is not None:
        check_max_cost(request.max_cost, _models_of_version(connection, batch["model_no"]), prices)
        _check_above_spent(connection, job_id, request.max_cost)
        changes["max_cost"] = request.max_cost
    if not _has_rows_to_run(connection, batch["no"]):
        raise InvalidInput(f"{job_id} has no failed row", field="job_id")
    warnings = _run_batch_again(connection, batch, **changes)
    return Accepted(job_id, Kind.BATCH, BatchState.RUNNING.value, warnings)


def _retry_training(connection: Connection, request: RetryRequest, prices: PriceList) -> Accepted:
    job_id = request.job_id
    training = _read(connection, Kind.TRAINING, job_id)
    if training["state"] not in TRAINING.retried_from:
        raise _not_failed(training, Kind.TRAINING)
    if training["method"] == "factory":
        raise InvalidInput(f"{job_id} is a fine-tuning at Mistral: submit it again", field="job_id")
    batches = named_batches_of(training["details"], training["batch_id"])
    if not batches:
        raise InvalidInput(f"{job_id} failed before anything was asked: submit it again", field="job_id")
    changes: dict[str, Any] = {}
    max_cost = None if training["approved"] else training["max_cost"]
    if request.max_cost is not None:
        models = models_of_training(training["method"], TrainSpec.read(training["options"]))
        check_max_cost(request.max_cost, models, prices)
        _check_above_spent(connection, job_id, request.max_cost)
        max_cost = request.max_cost
        changes |= {"max_cost": max_cost, "approved": False}
    kept = {}
    for name, batch_id in batches.items():
        batch = _kept(connection, batch_id)
        if batch is None:
            continue  # another one is begun in its place, for the texts that have no vector yet
        kept[name] = batch_id
        if batch["state"] != BatchState.COMPLETED.value:
            _go_on(connection, batch, max_cost)
    changes["details"] = (training["details"] or {}) | {"batches": kept}
    if training["batch_id"] not in kept.values():
        changes["batch_id"] = None
    moved = move_job(
        connection,
        job_id,
        TrainingState.RUNNING,
        old=TrainingState.FAILED,
        message=_GOES_ON,
        next_look_at=db_now(),
        due_at=None,
        changed_at=db_now(),
        attempts=0,
        **changes,
    )
    _require(moved, job_id)
    return Accepted(job_id, Kind.TRAINING, TrainingState.RUNNING.value, inner_batches=tuple(kept.values()))


def _retry_evaluation(connection: Connection, request: RetryRequest, prices: PriceList) -> Accepted:
    evaluation = _read(connection, Kind.EVALUATION, request.job_id)
    if evaluation["state"] not in EVALUATION.retried_from:
        raise _not_failed(evaluation, Kind.EVALUATION)
    max_cost = evaluation["max_cost"]
    if request.max_cost is not None:
        check_max_cost(request.max_cost, _models_of_version(connection, evaluation["model_no"]), prices)
        _check_above_spent(connection, request.job_id, request.max_cost)
        max_cost = request.max_cost
    return continue_evaluation(connection, request.job_id, max_cost)


def continue_evaluation(connection: Connection, job_id: str, max_cost: float | None) -> Accepted:
    """Let an evaluation that failed go on with the answers that it has, under this cap. Raises InvalidInput when it has
    not failed."""
    evaluation = _read(connection, Kind.EVALUATION, job_id)
    changes: dict[str, Any] = {"max_cost": max_cost}
    inner_batches = []
    for column in EVALUATION.inner_batches:
        batch = _kept(connection, evaluation[column])
        if batch is None:
            changes[column] = None  # the worker begins another one
            continue
        inner_batches.append(batch["id"])
        _go_on(connection, batch, max_cost)
    moved = move_job(
        connection,
        job_id,
        EvaluationState.RUNNING,
        old=EvaluationState.FAILED,
        message=_GOES_ON,
        next_look_at=db_now(),
        attempts=0,
        **changes,
    )
    _require(moved, job_id)
    return Accepted(job_id, Kind.EVALUATION, EvaluationState.RUNNING.value, inner_batches=tuple(inner_batches))


def _read(connection: Connection, kind: Kind, job_id: str) -> RowMapping:
    table = TABLE_OF[kind]
    row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().first()
    if row is None:
        raise no_job(job_id)
    return row


def _not_failed(job: RowMapping, kind: Kind) -> InvalidInput:
    return InvalidInput(f"{job['id']} is {job['state']}: only {_A[kind]} that failed is retried", field="job_id")


def _kept(connection: Connection, batch_id: str | None) -> RowMapping | None:
    """A job's own batch; None where it cannot go on, for it was cancelled or purged."""
    row = connection.execute(select(BatchRow.__table__).where(BatchRow.id == batch_id)).mappings().first()
    return None if row is None or row["purging"] or row["state"] == BatchState.CANCELLED.value else row


def _go_on(connection: Connection, batch: RowMapping, max_cost: float | None) -> None:
    """Run a job's own batch again, if rows are left to run, under the cap of the job."""
    if batch["state"] in BATCH.retried_from and _has_rows_to_run(connection, batch["no"]):
        _run_batch_again(connection, batch, max_cost=max_cost)


def _to_run(batch_no: int) -> ColumnElement[bool]:
    return (ChunkRow.batch_no == batch_no) & or_(ChunkRow.failed > 0, ChunkRow.state != ChunkState.DONE.value)


def _has_rows_to_run(connection: Connection, batch_no: int) -> bool:
    return connection.scalar(select(ChunkRow.number).where(_to_run(batch_no)).limit(1)) is not None


def _run_batch_again(connection: Connection, batch: RowMapping, **changes: Any) -> tuple[Notice, ...]:
    """Its failed and unanswered rows are pending again, and have their tries anew. What workers still finish is left to
    them: they record answers that were paid for, and then release the rest. Returns warnings; raises InvalidInput when
    another command was quicker."""
    batch_no = batch["no"]
    moved = move_job(
        connection,
        batch["id"],
        BatchState.RUNNING,
        BatchRow.purging.is_(False),
        old=BatchState(batch["state"]),
        message="failed rows are run again",
        stopping=None,
        **changes,
    )
    _require(moved, batch["id"])
    if batch["error_code"] == MonthlyLimitReached.code:
        remote_model = connection.scalar(select(ModelRow.remote_model).where(ModelRow.no == batch["model_no"]))
        forget_month(connection, remote_model or "")  # whoever retries knows of another limit, or asks
    held = chunk_transitions.lock_held(connection, ChunkRow.batch_no == batch_no)
    in_held = (ChunkRow.batch_no == batch_no) & ChunkRow.number.in_(held)
    chunk_transitions.run_again(connection, _to_run(batch_no) & ChunkRow.number.not_in(held))
    connection.execute(update(RemoteChunkRow).where(RemoteChunkRow.batch_no == batch_no).values(failures=None))
    # counters and errors of a chunk belong together
    stays = exists().where(in_held, RowErrorRow.row >= ChunkRow.first_row, RowErrorRow.row < _end_of_chunk())
    connection.execute(delete(RowErrorRow).where(RowErrorRow.batch_no == batch_no, ~stays))
    # the new answers of these rows must be added to the cache too
    run_again = select(ChunkRow.number).where(ChunkRow.batch_no == batch_no, ChunkRow.state == ChunkState.PENDING.value)
    connection.execute(
        delete(IndexedChunkRow).where(IndexedChunkRow.batch_no == batch_no, IndexedChunkRow.number.in_(run_again))
    )
    failed = connection.scalar(select(func.sum(ChunkRow.failed)).where(in_held)) or 0
    if not failed:
        return ()
    return (
        Notice(
            f"{failed} failed rows are in chunks that workers are still finishing, and are not run again: retry "
            f"{batch['id']} once more when it has ended"
        ),
    )


def _end_of_chunk() -> ColumnElement[int]:
    return ChunkRow.first_row + ChunkRow.rows


def _require(moved: bool, job_id: str) -> None:  # noqa: FBT001 - what the caller was told
    if not moved:
        raise InvalidInput(f"{job_id} is being retried by another command", field="job_id")


def _check_above_spent(connection: Connection, job_id: str, max_cost: float) -> None:
    """Raise InvalidInput for a cap that what was spent has reached: the job would stop at once."""
    cost = costs_of_jobs(connection, [job_id]).get(job_id)
    if cost is not None and cost["amount"] and max_cost <= cost["amount"]:
        raise InvalidInput(
            f"{named('max_cost', written(max_cost))} is not enough: {job_id} has cost {written(cost['amount'])} USD "
            "already, and the cap is of the whole job"
        )


def _models_of_version(connection: Connection, model_no: int) -> list[str]:
    model = connection.execute(select(ModelRow.__table__).where(ModelRow.no == model_no)).mappings().one()
    return models_asked(ModelRow(**model))


_RETRY: dict[Kind, Callable[[Connection, RetryRequest, PriceList], Accepted]] = {
    Kind.BATCH: _retry_batch,
    Kind.TRAINING: _retry_training,
    Kind.EVALUATION: _retry_evaluation,
}
_A = {Kind.TRAINING: "a training", Kind.EVALUATION: "an evaluation"}
