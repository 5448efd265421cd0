"""The method `factory`: Mistral fine-tunes a classifier. One function per state of a training; see `step.StepContext`.

A job that succeeded makes a model version. With multi-label targets the version first classifies the validation split,
through the engine, to tune its thresholds (`tuning`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labelmill.contracts.errors import InvalidInput, LabelmillError, RemoteFailed, RequestRefused
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import TrainingState
from labelmill.core.database import writing
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.jobs.uploaded_files import FILE_EXPIRY_HOURS
from labelmill.core.storage.base import StoredFile
from labelmill_worker.ports import control_plane as port
from labelmill_worker.store.ledger import write_price
from labelmill_worker.store.models import publish_version, register_version
from labelmill_worker.store.trainings import record_poll, update_held
from labelmill_worker.store.transitions import cancel_inner_batches, move_job
from labelmill_worker.train.dataset_rows import holds_chats, missing_here
from labelmill_worker.train.factory.remote_job import (
    SPLITS,
    checkpoints_of,
    estimate_of,
    event_lines,
    file_name,
    files_of,
    may_start,
    reason_of,
)
from labelmill_worker.train.factory.tuning import needs_tuning, tune
from labelmill_worker.train.factory.upload_parts import part_ranges, write_part
from labelmill_worker.train.left_out import LeftOut
from labelmill_worker.train.polling_schedule import has_stalled, next_poll_s
from labelmill_worker.train.step_context import NextPoll, StepContext


def begin(step: StepContext) -> NextPoll:
    """queued → uploading. An account that cannot fine-tune is told so before its texts are uploaded."""
    step.plane.check_factory()
    step.move(TrainingState.UPLOADING, "uploads the training files")
    return 0.0


def upload(step: StepContext) -> NextPoll:
    """uploading → validating: each file is there once, whatever happened before."""
    uploaded: dict[str, Any] = dict(step.row.remote_files or {})
    if step.row.remote_files is None:
        step.save(remote_files={})  # from now on there may be files to delete
    for split in SPLITS:
        file = step.split_file(split)
        if split in uploaded or file is None:
            continue
        with step.long_slot():
            ids = _uploaded_files(step, split, file)
        uploaded[split] = ids[0] if len(ids) == 1 else ids
        step.save(remote_files=dict(uploaded))
    if "train" not in uploaded:
        raise InvalidInput("the dataset has no rows to train on")
    step.move(TrainingState.VALIDATING, "files uploaded; Mistral validates them", remote_files=uploaded)
    return 0.0


def validate(step: StepContext) -> NextPoll:
    """validating → running or awaiting_approval: create the job once, wait for its cost, weigh it."""
    job = step.remote_job(step.row.remote_job or _created_job(step))
    waited_s = record(step, job)
    if end_with(step, job):
        return None
    if job.status in (port.RUNNING, port.SUCCESS):  # started by hand, in Mistral's console
        step.move(TrainingState.RUNNING, "was started at Mistral")
        return 0.0
    if job.status != port.VALIDATED:
        return keep_polling(step, waited_s)
    if may_start(job.cost, step.row.max_cost, approved=step.row.approved):
        step.move(TrainingState.RUNNING, f"starts; {_price(job)}")
        return 0.0
    cap = step.row.max_cost
    why = "no cost was allowed yet" if cap is None else f"only {cap:g} was allowed"
    step.move(TrainingState.AWAITING_APPROVAL, f"waits for approval: {_price(job)}, {why}")
    return next_poll_s(TrainingState.AWAITING_APPROVAL, 0, step.poll_s)


def await_approval(step: StepContext) -> NextPoll:
    """awaiting_approval → running, once a person said yes."""
    job = step.remote_job(step.row.remote_job or "")
    record(step, job)
    if end_with(step, job):
        return None
    if step.row.approved or job.status in (port.RUNNING, port.SUCCESS):
        step.move(TrainingState.RUNNING, f"approved; {_price(job)}")
        return 0.0
    return next_poll_s(step.state, 0, step.poll_s)  # a person may take longer than any time-out


def follow(step: StepContext) -> NextPoll:
    """running → succeeded, failed or cancelled. A job that still waits is started; one that was started is not."""
    job = step.remote_job(step.row.remote_job or "")
    waited_s = record(step, job)
    if end_with(step, job):
        return None
    if job.status == port.SUCCESS and job.fine_tuned_model:
        return finish(step, job, job.fine_tuned_model)
    if job.status == port.VALIDATED:
        step.confirm_lease()
        try:
            step.plane.start_job(job.id)
        except RequestRefused:
            # an earlier start may have arrived without its answer
            if step.remote_job(job.id).status == port.VALIDATED:
                raise
        return next_poll_s(step.state, 0, step.poll_s)
    return keep_polling(step, waited_s)


def cancel(step: StepContext) -> NextPoll:
    """Any state → cancelled, at Mistral as well. A job that Mistral finished before that keeps its end. Raises what the
    port raises, where Mistral cannot tell of the job."""
    job_id = step.row.remote_job or _job_without_record(step)
    if job_id is None:
        step.cancel()
        return None
    job = step.remote_job(job_id)
    record(step, job)
    if step.state is not TrainingState.RUNNING and job.status in (port.STARTED, port.RUNNING, port.SUCCESS):
        step.move(TrainingState.RUNNING, "was started at Mistral")
        return 0.0
    if end_with(step, job):
        return None
    if job.status == port.SUCCESS and job.fine_tuned_model:
        with writing(step.engine) as connection:  # the model is paid for: only its tuning is given up
            step.require_lease(connection)
            cancel_inner_batches(connection, step.row.id, f"cancelled with {step.row.id}")
        return finish(step, job, job.fine_tuned_model)
    if job.status != port.CANCELLATION_REQUESTED:
        try:
            step.plane.cancel_job(job.id)
        except LabelmillError as error:
            if step.state is TrainingState.RUNNING:
                if isinstance(error, RequestRefused):  # ended in this moment; the next poll shows how
                    return next_poll_s(step.state, 0, step.poll_s)
                raise
            # a job that was never started costs nothing: let it lie
    step.cancel()
    return None


STEPS: dict[TrainingState, Callable[[StepContext], NextPoll]] = {
    TrainingState.QUEUED: begin,
    TrainingState.UPLOADING: upload,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: await_approval,
    TrainingState.RUNNING: follow,
}


def record(step: StepContext, job: port.RemoteJob) -> float:
    """Write down what a poll at Mistral showed. Returns for how many seconds nothing has changed."""
    row, points, estimate = step.row, checkpoints_of(job), estimate_of(job)
    changed = job.status != row.remote_status or points != (row.checkpoints or [])
    facts: dict[str, Any] = {"remote_status": job.status, "checkpoints": points}
    if estimate:
        facts["estimate"] = estimate
    if job.fine_tuned_model:
        facts["remote_model"] = job.fine_tuned_model
    record_poll(step.engine, row.id, step.token, event_lines(job), changed=changed, **facts)
    return 0.0 if changed or row.changed_at is None else max(0.0, step.now - row.changed_at)


def end_with(step: StepContext, job: port.RemoteJob) -> bool:
    """End the training if its job has ended without a model. Raises RemoteFailed with Mistral's reason if it failed."""
    if job.status in (port.FAILED, port.FAILED_VALIDATION):
        raise RemoteFailed(reason_of(job))
    if job.status == port.CANCELLED:
        step.move(TrainingState.CANCELLED, "cancelled at Mistral", error="cancelled at Mistral")
        return True
    return False


def finish(step: StepContext, job: port.RemoteJob, remote_model: str) -> NextPoll:
    """running → succeeded, once the thresholds are tuned where there is something to tune."""
    recipe = {"chats": True} if holds_chats(step.split_file("train")) else None
    thresholds: dict[str, Any] | None = None
    if needs_tuning(step):
        wait_s, thresholds = tune(step, remote_model, recipe)
        if thresholds is None:
            return wait_s
    else:
        step.save(details={"left_out": LeftOut().document()})
    succeed(step, job, remote_model, recipe, thresholds)
    return None


def succeed(
    step: StepContext,
    job: port.RemoteJob,
    remote_model: str,
    recipe: dict[str, Any] | None,
    thresholds: dict[str, Any] | None,
) -> None:
    """Register or publish the model version and end the training, in one transaction. Raises LeaseLost."""
    estimate = estimate_of(job) or step.row.estimate
    # Mistral reports no other price than the one it named before.
    cost = {"amount": estimate["amount"], "currency": estimate["currency"]} if estimate else None
    with writing(step.engine) as connection:
        update_held(connection, step.row.id, step.token, remote_model=remote_model)
        number = step.row.model_no
        if number is None:
            number, version, promoted = register_version(
                connection, step.row, step.dataset, remote_model, recipe=recipe
            )
            made = f"{step.row.name}@{version}"
        else:
            made, promoted = publish_version(connection, number, thresholds)
        moved = move_job(
            connection,
            step.row.id,
            TrainingState.SUCCEEDED,
            old=TrainingState.RUNNING,
            token=step.token,
            model_no=number,
            cost=cost,
            message=f"made {made}{', promoted' if promoted else ''}",
        )
        if not moved:
            raise LeaseLost(f"{step.row.id} was moved by a person or another worker")
        if cost is not None:
            write_price(connection, step.row.id, step.spec.base_model, cost["amount"], cost["currency"])


def keep_polling(step: StepContext, waited_s: float) -> NextPoll:
    """The next poll at a job that goes on. Raises RemoteFailed when it has shown no change for too long."""
    if not has_stalled(waited_s):
        return next_poll_s(step.state, waited_s, step.poll_s)
    raise RemoteFailed(f"nothing has changed at Mistral for {waited_s / 3600:.0f} hours")  # the job is cancelled


def _uploaded_files(step: StepContext, split: str, file: StoredFile) -> list[str]:
    """The ids of a split's file at Mistral, or of its parts. Raises WorkerUnable when it is not there."""
    try:
        with file.on_disk() as path:
            parts = part_ranges(path)
            return [_uploaded_file(step, split, path, part, number, len(parts)) for number, part in enumerate(parts, 1)]
    except FileNotFoundError as error:
        raise missing_here(file, error) from error


def _uploaded_file(step: StepContext, split: str, path: Path, part: tuple[int, int], number: int, parts: int) -> str:
    name = file_name(step.row.id, split if parts == 1 else f"{split}-{number}of{parts}", path.name)
    for file in step.plane.find_files(name):
        if file.size_bytes == part[1]:
            return file.id
    step.confirm_lease()
    if parts == 1:
        return step.plane.upload_file(path, name, FILE_EXPIRY_HOURS)
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / name
        write_part(path, part, cut)
        return step.plane.upload_file(cut, name, FILE_EXPIRY_HOURS)


def _created_job(step: StepContext) -> str:
    training_files = files_of(step.row, "train")
    job = step.plane.find_job(training_files[0])
    if job is None:
        spec = step.spec
        order = port.JobOrder(
            spec.base_model,
            training_files,
            files_of(step.row, "validation"),
            targets=_targets(step),
            suffix=spec.suffix or step.row.name[:18],
            steps=spec.steps,
            learning_rate=spec.learning_rate,
            wandb_project=spec.wandb_project,
        )
        step.confirm_lease()
        job = step.plane.create_job(order)
    step.save(remote_job=job.id)
    return job.id


def _targets(step: StepContext) -> tuple[port.OrderedTarget, ...]:
    """Every target with all labels of the dataset: those that only validation has would be unknown to Mistral."""
    weights = step.spec.target_weights
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    return tuple(
        port.OrderedTarget(target.name, target.labels, target.multi, weights.get(target.name, 1.0))
        for target in schema.targets
    )


def _job_without_record(step: StepContext) -> str | None:
    # A crash between creating a job and writing its id down leaves a job that only its file leads to.
    training_files = files_of(step.row, "train")
    if step.state is not TrainingState.VALIDATING or not training_files:
        return None
    job = step.plane.find_job(training_files[0])
    return job.id if job else None


def _price(job: port.RemoteJob) -> str:
    if job.cost is None:
        return "Mistral names no cost"
    return f"Mistral estimates {job.cost:g} {job.cost_currency or ''}".rstrip()
