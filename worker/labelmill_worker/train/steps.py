"""One function per state of a training. Each takes one step and returns the seconds until the next: 0 goes on at once.

None means that the training has ended. Every function can be repeated after a crash at any line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine

from labelmill.contracts.database import db_now, writing
from labelmill.contracts.errors import InvalidInput, Permanent, RemoteFailed, RequestRefused
from labelmill.contracts.specs import TrainSpec
from labelmill.contracts.states import TrainingState
from labelmill.contracts.tables import DatasetRow, TrainingRow
from labelmill_worker.mistral import port
from labelmill_worker.store.jobs import move_job, renew_job
from labelmill_worker.store.leases import LeaseLost
from labelmill_worker.store.models import register_version
from labelmill_worker.store.trainings import record_look, update_held
from labelmill_worker.train.pace import is_lifeless, next_look_s
from labelmill_worker.train.remote import (
    SPLITS,
    checkpoints_of,
    estimate_of,
    event_lines,
    file_name,
    may_start,
    reason_of,
)

NextLook = float | None


@dataclass(frozen=True)
class Look:
    """One look at one training, under its lease. `row` is as read at `now` (seconds, the database's clock)."""

    engine: Engine
    plane: port.ControlPlane
    row: TrainingRow
    dataset: DatasetRow
    now: float
    data_path: Path
    poll_s: float
    lease_s: float

    @property
    def token(self) -> str:
        """What writes are guarded by."""
        return self.row.lease_token or ""

    @property
    def state(self) -> TrainingState:
        """Where the training stands."""
        return TrainingState(self.row.state)

    def save(self, **values: Any) -> None:
        """Write facts about the training. Raises LeaseLost."""
        with writing(self.engine) as connection:
            update_held(connection, self.row.id, self.token, **values)

    def confirm_lease(self) -> None:
        """Renew the lease now, before what must not be done twice. Raises LeaseLost."""
        if not renew_job(self.engine, TrainingRow, self.row.id, self.token, self.lease_s):
            raise LeaseLost(f"the lease on {self.row.id} was lost")

    def move(self, new: TrainingState, message: str, **values: Any) -> None:
        """Move the training and leave a line in its history. Raises LeaseLost when somebody moved it first."""
        with writing(self.engine) as connection:
            moved = move_job(
                connection, TrainingRow, self.row.id, self.state, new, token=self.token,
                message=message, changed_at=db_now(), attempts=0, **values,
            )  # fmt: skip
            if not moved:
                raise LeaseLost(f"{self.row.id} was moved by somebody else")

    def remote_job(self, job_id: str) -> port.RemoteJob:
        """The job at Mistral. Raises RemoteFailed when it is gone."""
        try:
            return self.plane.get_job(job_id)
        except RemoteFailed as error:
            raise RemoteFailed(f"Mistral no longer knows this training's job {job_id}") from error


def take_step(look: Look) -> NextLook:
    """Do what the training's state asks for. Raises LeaseLost, and what the port raises."""
    if look.row.cancel_requested:
        return cancel(look)
    return _STEPS[look.state](look)


def begin(look: Look) -> NextLook:
    """queued → uploading."""
    look.move(TrainingState.UPLOADING, "uploads the training files")
    return 0.0


def upload(look: Look) -> NextLook:
    """uploading → validating: each file is there once, whatever happened before."""
    files, rows = look.dataset.files or {}, look.dataset.splits or {}
    uploaded: dict[str, str] = dict(look.row.remote_files or {})
    for split in SPLITS:
        if split in uploaded or split not in files or rows.get(split) == 0:
            continue
        uploaded[split] = _uploaded_file(look, split, files[split])
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
        look.move(TrainingState.CANCELLED, "cancelled")
        return None
    job = look.remote_job(job_id)
    record(look, job)
    if look.state is not TrainingState.RUNNING and job.status == port.SUCCESS:
        look.move(TrainingState.RUNNING, "was started at Mistral")
        return 0.0
    if end_with(look, job):
        return None
    if job.status != port.CANCELLATION_REQUESTED:
        try:
            look.plane.cancel_job(job.id)
        except RequestRefused:
            if look.state is TrainingState.RUNNING:  # ended in this moment; the next look shows how
                return next_look_s(look.state, 0, look.poll_s)
            # a job that was never started costs nothing: let it lie
    look.move(TrainingState.CANCELLED, "cancelled")
    return None


_STEPS: dict[TrainingState, Callable[[Look], NextLook]] = {
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
    """End the training if its job has ended. Raises RemoteFailed with Mistral's reason if it failed."""
    if job.status in (port.FAILED, port.FAILED_VALIDATION):
        raise RemoteFailed(reason_of(job))
    if job.status == port.CANCELLED:
        look.move(TrainingState.CANCELLED, "cancelled at Mistral", error="cancelled at Mistral")
        return True
    if job.status == port.SUCCESS and job.fine_tuned_model and look.state is TrainingState.RUNNING:
        succeed(look, job, job.fine_tuned_model)
        return True
    return False


def succeed(look: Look, job: port.RemoteJob, remote_model: str) -> None:
    """Register the model version and end the training, in one transaction. Raises LeaseLost."""
    estimate = estimate_of(job) or look.row.estimate
    # Mistral reports no other price than the one it named before.
    cost = {"amount": estimate["amount"], "currency": estimate["currency"]} if estimate else None
    with writing(look.engine) as connection:
        update_held(connection, look.row.id, look.token, remote_model=remote_model)
        number, version, promoted = register_version(connection, look.row, look.dataset, remote_model)
        moved = move_job(
            connection, TrainingRow, look.row.id, TrainingState.RUNNING, TrainingState.SUCCEEDED,
            token=look.token, model_no=number, cost=cost,
            message=f"made {look.row.name}@{version}{', promoted' if promoted else ''}",
        )  # fmt: skip
        if not moved:
            raise LeaseLost(f"{look.row.id} was moved by somebody else")


def keep_looking(look: Look, waited_s: float) -> NextLook:
    """The next look at a job that goes on. Raises RemoteFailed when it has shown no change for too long."""
    if not is_lifeless(waited_s):
        return next_look_s(look.state, waited_s, look.poll_s)
    if look.row.remote_job:
        with contextlib.suppress(Permanent):  # whatever comes of it, nobody waits for this job any more
            look.plane.cancel_job(look.row.remote_job)
    raise RemoteFailed(f"nothing has changed at Mistral for {waited_s / 3600:.0f} hours; the job was cancelled")


def _uploaded_file(look: Look, split: str, stored_path: str) -> str:
    path = look.data_path / stored_path  # an absolute path stays what it is
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InvalidInput(f"the dataset's {split} file {stored_path} cannot be opened: {error.strerror}") from error
    name = file_name(look.row.id, split, stored_path)
    for file in look.plane.find_files(name):
        if file.size_bytes == size:
            return file.id
    look.confirm_lease()
    return look.plane.upload_file(path, name)


def _created_job(look: Look) -> str:
    files: dict[str, str] = look.row.remote_files or {}
    job = look.plane.find_job(files["train"])
    if job is None:
        spec = TrainSpec.model_validate(look.row.options)
        order = port.JobOrder(
            spec.base_model, files["train"], files.get("validation"), suffix=look.row.name[:18], steps=spec.steps,
            learning_rate=spec.learning_rate, wandb_project=spec.wandb_project,
        )  # fmt: skip
        look.confirm_lease()
        job = look.plane.create_job(order)
    look.save(remote_job=job.id)
    return job.id


def _job_without_record(look: Look) -> str | None:
    # A crash between creating a job and writing its id down leaves a job that only its file leads to.
    training_file = (look.row.remote_files or {}).get("train")
    if look.state is not TrainingState.VALIDATING or not training_file:
        return None
    job = look.plane.find_job(training_file)
    return job.id if job else None


def _price(job: port.RemoteJob) -> str:
    if job.cost is None:
        return "Mistral names no cost"
    return f"Mistral estimates {job.cost:g} {job.cost_currency or ''}".rstrip()
