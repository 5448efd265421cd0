"""The method `factory`: Mistral fine-tunes a classifier. One function per state of a training; see `look.Look`.

A job that succeeded makes a model version. With multi-label targets the version first classifies the validation split,
through the engine, to tune its thresholds (`tuning`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labelmill.contracts.errors import InvalidInput, RemoteFailed, RequestRefused
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import TrainingState
from labelmill.core.database import writing
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.ports import control_plane as port
from labelmill_worker.store.models import publish_version, register_version
from labelmill_worker.store.trainings import record_look, update_held
from labelmill_worker.store.transitions import cancel_inner_batches, move_job
from labelmill_worker.train.dataset_rows import holds_chats
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
from labelmill_worker.train.poll import Look, NextLook
from labelmill_worker.train.polling_schedule import is_lifeless, next_look_s


def begin(look: Look) -> NextLook:
    """queued → uploading."""
    look.move(TrainingState.UPLOADING, "uploads the training files")
    return 0.0


def upload(look: Look) -> NextLook:
    """uploading → validating: each file is there once, whatever happened before."""
    uploaded: dict[str, Any] = dict(look.row.remote_files or {})
    for split in SPLITS:
        path = look.split_path(split)
        if split in uploaded or path is None:
            continue
        parts = part_ranges(path)
        with look.long_slot():
            ids = [_uploaded_file(look, split, path, part, number, len(parts)) for number, part in enumerate(parts, 1)]
        uploaded[split] = ids[0] if len(ids) == 1 else ids
        look.save(remote_files=dict(uploaded))
    if "train" not in uploaded:
        raise InvalidInput("the dataset has no rows to train on")
    look.move(TrainingState.VALIDATING, "files uploaded; Mistral validates them", remote_files=uploaded)
    return 0.0


def validate(look: Look) -> NextLook:
    """validating → running or awaiting_approval: create the job once, wait for its cost, weigh it."""
    job = look.remote_job(look.row.remote_job or _created_job(look))
    waited_s = record(look, job)
    if end_with(look, job):
        return None
    if job.status in (port.RUNNING, port.SUCCESS):  # started by hand, in Mistral's console
        look.move(TrainingState.RUNNING, "was started at Mistral")
        return 0.0
    if job.status != port.VALIDATED:
        return keep_looking(look, waited_s)
    if may_start(job.cost, look.row.max_cost, approved=look.row.approved):
        look.move(TrainingState.RUNNING, f"starts; {_price(job)}")
        return 0.0
    cap = look.row.max_cost
    why = "no cost was allowed yet" if cap is None else f"only {cap:g} was allowed"
    look.move(TrainingState.AWAITING_APPROVAL, f"waits for approval: {_price(job)}, {why}")
    return next_look_s(TrainingState.AWAITING_APPROVAL, 0, look.poll_s)


def await_approval(look: Look) -> NextLook:
    """awaiting_approval → running, once a person said yes."""
    job = look.remote_job(look.row.remote_job or "")
    record(look, job)
    if end_with(look, job):
        return None
    if look.row.approved or job.status in (port.RUNNING, port.SUCCESS):
        look.move(TrainingState.RUNNING, f"approved; {_price(job)}")
        return 0.0
    return next_look_s(look.state, 0, look.poll_s)  # a person may take longer than any time-out


def follow(look: Look) -> NextLook:
    """running → succeeded, failed or cancelled. A job that still waits is started; one that was started is not."""
    job = look.remote_job(look.row.remote_job or "")
    waited_s = record(look, job)
    if end_with(look, job):
        return None
    if job.status == port.SUCCESS and job.fine_tuned_model:
        return finish(look, job, job.fine_tuned_model)
    if job.status == port.VALIDATED:
        look.confirm_lease()
        try:
            look.plane.start_job(job.id)
        except RequestRefused:
            # an earlier start may have arrived without its answer
            if look.remote_job(job.id).status == port.VALIDATED:
                raise
        return next_look_s(look.state, 0, look.poll_s)
    return keep_looking(look, waited_s)


def cancel(look: Look) -> NextLook:
    """Any state → cancelled, at Mistral as well. A job that Mistral finished before that keeps its end."""
    job_id = look.row.remote_job or _job_without_record(look)
    if job_id is None:
        look.cancel()
        return None
    job = look.remote_job(job_id)
    record(look, job)
    if look.state is not TrainingState.RUNNING and job.status == port.SUCCESS:
        look.move(TrainingState.RUNNING, "was started at Mistral")
        return 0.0
    if end_with(look, job):
        return None
    if job.status == port.SUCCESS and job.fine_tuned_model:
        with writing(look.engine) as connection:  # the model is paid for: only its tuning is given up
            look.require_lease(connection)
            cancel_inner_batches(connection, look.row.id, f"cancelled with {look.row.id}")
        return finish(look, job, job.fine_tuned_model)
    if job.status != port.CANCELLATION_REQUESTED:
        try:
            look.plane.cancel_job(job.id)
        except RequestRefused:
            if look.state is TrainingState.RUNNING:  # ended in this moment; the next look shows how
                return next_look_s(look.state, 0, look.poll_s)
            # a job that was never started costs nothing: let it lie
    look.cancel()
    return None


STEPS: dict[TrainingState, Callable[[Look], NextLook]] = {
    TrainingState.QUEUED: begin,
    TrainingState.UPLOADING: upload,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: await_approval,
    TrainingState.RUNNING: follow,
}


def record(look: Look, job: port.RemoteJob) -> float:
    """Write down what a look at Mistral showed. Returns for how many seconds nothing has changed."""
    row, points, estimate = look.row, checkpoints_of(job), estimate_of(job)
    changed = job.status != row.remote_status or points != (row.checkpoints or [])
    facts: dict[str, Any] = {"remote_status": job.status, "checkpoints": points}
    if estimate:
        facts["estimate"] = estimate
    if job.fine_tuned_model:
        facts["remote_model"] = job.fine_tuned_model
    record_look(look.engine, row.id, look.token, event_lines(job), changed=changed, **facts)
    return 0.0 if changed or row.changed_at is None else max(0.0, look.now - row.changed_at)


def end_with(look: Look, job: port.RemoteJob) -> bool:
    """End the training if its job has ended without a model. Raises RemoteFailed with Mistral's reason if it failed."""
    if job.status in (port.FAILED, port.FAILED_VALIDATION):
        raise RemoteFailed(reason_of(job))
    if job.status == port.CANCELLED:
        look.move(TrainingState.CANCELLED, "cancelled at Mistral", error="cancelled at Mistral")
        return True
    return False


def finish(look: Look, job: port.RemoteJob, remote_model: str) -> NextLook:
    """running → succeeded, once the thresholds are tuned where there is something to tune."""
    recipe = {"chats": True} if holds_chats(look.split_path("train")) else None
    thresholds: dict[str, Any] | None = None
    if needs_tuning(look):
        wait_s, thresholds = tune(look, remote_model, recipe)
        if thresholds is None:
            return wait_s
    succeed(look, job, remote_model, recipe, thresholds)
    return None


def succeed(
    look: Look,
    job: port.RemoteJob,
    remote_model: str,
    recipe: dict[str, Any] | None,
    thresholds: dict[str, Any] | None,
) -> None:
    """Register or publish the model version and end the training, in one transaction. Raises LeaseLost."""
    estimate = estimate_of(job) or look.row.estimate
    # Mistral reports no other price than the one it named before.
    cost = {"amount": estimate["amount"], "currency": estimate["currency"]} if estimate else None
    with writing(look.engine) as connection:
        update_held(connection, look.row.id, look.token, remote_model=remote_model)
        number = look.row.model_no
        if number is None:
            number, version, promoted = register_version(
                connection, look.row, look.dataset, remote_model, recipe=recipe
            )
            made = f"{look.row.name}@{version}"
        else:
            made, promoted = publish_version(connection, number, thresholds)
        moved = move_job(
            connection,
            look.row.id,
            TrainingState.SUCCEEDED,
            old=TrainingState.RUNNING,
            token=look.token,
            model_no=number,
            cost=cost,
            message=f"made {made}{', promoted' if promoted else ''}",
        )
        if not moved:
            raise LeaseLost(f"{look.row.id} was moved by somebody else")


def keep_looking(look: Look, waited_s: float) -> NextLook:
    """The next look at a job that goes on. Raises RemoteFailed when it has shown no change for too long."""
    if not is_lifeless(waited_s):
        return next_look_s(look.state, waited_s, look.poll_s)
    raise RemoteFailed(f"nothing has changed at Mistral for {waited_s / 3600:.0f} hours")  # the job is cancelled


def _uploaded_file(look: Look, split: str, path: Path, part: tuple[int, int], number: int, parts: int) -> str:
    name = file_name(look.row.id, split if parts == 1 else f"{split}-{number}of{parts}", path.name)
    for file in look.plane.find_files(name):
        if file.size_bytes == part[1]:
            return file.id
    look.confirm_lease()
    if parts == 1:
        return look.plane.upload_file(path, name)
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / name
        write_part(path, part, cut)
        return look.plane.upload_file(cut, name)


def _created_job(look: Look) -> str:
    training_files = files_of(look.row, "train")
    job = look.plane.find_job(training_files[0])
    if job is None:
        spec = look.spec
        order = port.JobOrder(
            spec.base_model,
            training_files,
            files_of(look.row, "validation"),
            targets=_targets(look),
            suffix=spec.suffix or look.row.name[:18],
            steps=spec.steps,
            learning_rate=spec.learning_rate,
            wandb_project=spec.wandb_project,
        )
        look.confirm_lease()
        job = look.plane.create_job(order)
    look.save(remote_job=job.id)
    return job.id


def _targets(look: Look) -> tuple[port.OrderedTarget, ...]:
    """Every target with all labels of the dataset: those that only validation has would be unknown to Mistral."""
    weights = look.spec.target_weights
    schema = LabelSchema.from_json(look.dataset.label_schema or [])
    return tuple(
        port.OrderedTarget(target.name, target.labels, target.multi, weights.get(target.name, 1.0))
        for target in schema.targets
    )


def _job_without_record(look: Look) -> str | None:
    # A crash between creating a job and writing its id down leaves a job that only its file leads to.
    training_files = files_of(look.row, "train")
    if look.state is not TrainingState.VALIDATING or not training_files:
        return None
    job = look.plane.find_job(training_files[0])
    return job.id if job else None


def _price(job: port.RemoteJob) -> str:
    if job.cost is None:
        return "Mistral names no cost"
    return f"Mistral estimates {job.cost:g} {job.cost_currency or ''}".rstrip()
