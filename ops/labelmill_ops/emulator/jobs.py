"""The life of a fine-tuning job: QUEUED, VALIDATING, VALIDATED, RUNNING, SUCCESS, and the ways it can end early."""

import asyncio
import datetime as dt
import math
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from labelmill_ops.emulator.classifier import Classifier, Losses, train
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.fault_kinds import FaultPlan
from labelmill_ops.emulator.pricing import quoted
from labelmill_ops.emulator.store import Store, StoredJob
from labelmill_ops.emulator.training_data import AskedTarget, BadTrainingFileError, TrainingData, read_training_data

WORKSPACE = "1abe1a11"
_CANCEL_WITHIN_S = 0.1
ENDED = frozenset({"SUCCESS", "FAILED", "FAILED_VALIDATION", "CANCELLED"})


class WrongStatusError(Exception):
    """What was asked for is not possible in the job's status."""


class _CancelledTrainingError(Exception):
    """The job was cancelled between two checkpoints, or is gone."""


class _FailedTrainingError(Exception):
    """The job fails on purpose."""


class JobRunner:
    """Runs every job as a task of the server's event loop; reading and training happen in a thread."""

    def __init__(self, config: EmulatorConfig, store: Store, plan: FaultPlan) -> None:
        """Take nothing up yet: `resume` does, once the loop runs."""
        self._config, self._store, self._plan = config, store, plan
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="training")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: dict[str, threading.Event] = {}

    def resume(self) -> None:
        """Take up the jobs a restart interrupted."""
        for job in self._store.jobs.values():
            if job.status in ("QUEUED", "VALIDATING"):
                self._spawn(job, validate=True)
            elif job.status == "RUNNING":
                job.checkpoints = []
                self._spawn(job, validate=False)
            elif job.status == "CANCELLATION_REQUESTED":
                self._move(job, "CANCELLED")

    async def close(self) -> None:
        """Stop all jobs where they are; a state folder keeps their status for `resume`."""
        for cancelled in self._cancelled.values():
            cancelled.set()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        # Waited for off the loop: a fit in a thread cannot be interrupted, only outlived.
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def create(self, job: StoredJob) -> None:
        """Queue a new job. Its fate, if a fault has one for it, is decided here."""
        if fault := self._plan.draw("create-job", job=True):
            job.fate, job.fate_status = fault.kind, fault.parameter
        self._move(job, "QUEUED")
        self._spawn(job, validate=True)

    def start(self, job: StoredJob) -> None:
        """Start a validated job. Raises WrongStatusError."""
        if job.status != "VALIDATED":
            message = f"Job {job.id} cannot be started: its status is {job.status}, not VALIDATED"
            raise WrongStatusError(message)
        if (job.fate, job.fate_status) == ("job-stuck", "VALIDATED"):
            return  # accepted, and nothing comes of it
        self._move(job, "RUNNING")
        self._spawn(job, validate=False)

    def cancel(self, job: StoredJob) -> None:
        """Cancel a job that has not ended: at once, or at the next checkpoint if it trains. Raises WrongStatusError."""
        if job.status in ENDED:
            message = f"Job {job.id} cannot be cancelled: its status is {job.status}"
            raise WrongStatusError(message)
        if job.status == "RUNNING":
            self._move(job, "CANCELLATION_REQUESTED")
        elif job.status != "CANCELLATION_REQUESTED":
            self._move(job, "CANCELLED")
        self._cancelled.setdefault(job.id, threading.Event()).set()

    def _spawn(self, job: StoredJob, *, validate: bool) -> None:
        self._cancelled.setdefault(job.id, threading.Event())
        self._tasks[job.id] = asyncio.get_running_loop().create_task(self._run(job, validate=validate))

    async def _run(self, job: StoredJob, *, validate: bool) -> None:
        try:
            data = await self._validate(job) if validate else await self._read(job)
            await self._meet_fate(job)
            if validate and job.status == "VALIDATED" and job.auto_start:
                self._move(job, "RUNNING")
            if job.status == "RUNNING":
                await self._meet_fate(job)
                await self._train(job, data)
        except BadTrainingFileError as error:
            if job.status not in ENDED:
                self._move(job, "FAILED_VALIDATION", str(error))
        except _CancelledTrainingError:
            if job.status not in ENDED and job.id in self._store.jobs:
                self._move(job, "CANCELLED")
        except _FailedTrainingError as error:
            self._move(job, "FAILED", str(error))
        except Exception as error:  # noqa: BLE001 - a job that ends without a status would be polled for ever
            self._move(job, "FAILED", f"{type(error).__name__}: {error}")

    async def _meet_fate(self, job: StoredJob) -> None:
        """What a fault has in store for the job in the status it is in."""
        if job.fate == "job-invalid" and job.status == "VALIDATING":
            raise BadTrainingFileError("line 1: the emulator was told to find something wrong here")
        if job.fate == "job-fails" and job.status == "RUNNING":
            raise _FailedTrainingError("the emulator was told to fail this job")
        if job.status != job.fate_status:
            return
        if job.fate == "job-cancelled":
            self.cancel(job)
            raise _CancelledTrainingError
        if job.fate == "job-vanishes":
            self._store.delete_job(job.id)
            raise _CancelledTrainingError
        if job.fate == "job-stuck":
            while not self._cancelled[job.id].is_set():  # noqa: ASYNC110 - a threading.Event cannot be awaited
                await asyncio.sleep(_CANCEL_WITHIN_S)
            raise _CancelledTrainingError

    async def _read(self, job: StoredJob) -> TrainingData:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read_files, job)

    def _read_files(self, job: StoredJob) -> TrainingData:
        files = {}
        for file_id in (*job.training_files, *job.validation_files):
            try:
                files[file_id] = (self._store.files[file_id].filename, self._store.content_of(file_id))
            except KeyError as error:
                message = f"file {file_id} was deleted"
                raise BadTrainingFileError(message) from error
        asked = [
            AskedTarget(target["name"], tuple(target["labels"]), target["weight"], target["loss_function"])
            for target in job.asked_targets
        ]
        training = [files[file_id] for file_id in job.training_files]
        return read_training_data(training, [files[file_id] for file_id in job.validation_files], asked)

    async def _validate(self, job: StoredJob) -> TrainingData:
        began = time.monotonic()
        # Stays in the queue briefly, so that pollers see the status.
        await asyncio.sleep(self._config.validate_s * 0.2)
        await self._meet_fate(job)
        if job.status == "QUEUED":
            self._move(job, "VALIDATING")
        await self._meet_fate(job)
        data = await self._read(job)
        await asyncio.sleep(max(0.0, self._config.validate_s - (time.monotonic() - began)))
        if job.status != "VALIDATING":
            raise _CancelledTrainingError
        job.targets = [target.as_json() for target in data.targets]
        job.metadata = quoted(job.hyperparameters, data, self._config.train_s)
        self._move(job, "VALIDATED")
        return data

    async def _train(self, job: StoredJob, data: TrainingData) -> None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        steps = max(1, job.metadata["train_tokens"] // job.metadata["train_tokens_per_step"])
        arrived: asyncio.Queue[tuple[int, int, Losses]] = asyncio.Queue()
        cancelled = self._cancelled[job.id]

        def on_checkpoint(number: int, of: int, losses: Losses) -> None:
            if cancelled.is_set():
                raise _CancelledTrainingError
            loop.call_soon_threadsafe(arrived.put_nowait, (number, of, losses))

        async def publish_checkpoints() -> None:
            while True:
                number, of, losses = await arrived.get()
                due = began + self._config.train_s * number / of
                # A threading.Event, which the training thread reads too, cannot be awaited.
                while (wait_s := due - time.monotonic()) > 0 and not cancelled.is_set():  # noqa: ASYNC110
                    await asyncio.sleep(min(wait_s, _CANCEL_WITHIN_S))
                if cancelled.is_set():
                    return
                metrics = {"train_loss": losses.train, "valid_loss": losses.valid}
                step = max(1, steps * number // of)
                job.checkpoints.append({"metrics": metrics, "step_number": step, "created_at": int(time.time())})
                job.modified_at = int(time.time())
                self._store.save_job(job)
                if number == of:
                    return

        publisher = loop.create_task(publish_checkpoints())
        try:
            classifier = await loop.run_in_executor(
                self._executor, lambda: train(data, checkpoints=steps, on_checkpoint=on_checkpoint)
            )
            await publisher
        finally:
            publisher.cancel()
        if job.status != "RUNNING":
            raise _CancelledTrainingError
        self._succeed(job, classifier)

    def _succeed(self, job: StoredJob, classifier: Classifier) -> None:
        today = dt.datetime.now(dt.UTC).strftime("%Y%m%d")
        suffix = f":{job.suffix}" if job.suffix else ""
        job.fine_tuned_model = f"ft:classifier:{job.model}:{WORKSPACE}:{today}{suffix}:{uuid.uuid4().hex[:8]}"
        job.trained_tokens = job.metadata["train_tokens"]
        self._store.add_model(job, classifier)
        self._move(job, "SUCCESS")

    def _move(self, job: StoredJob, status: str, reason: str | None = None) -> None:
        job.status, job.modified_at, job.message = status, int(time.time()), reason
        data: dict[str, Any] = {"status": status}
        if reason is not None:
            data["error"] = reason
        job.events.append({"name": "status-updated", "data": data, "created_at": math.floor(time.time())})
        self._store.save_job(job)


JOBS = web.AppKey("jobs", JobRunner)
