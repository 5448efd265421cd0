"""The control plane of Mistral in memory: files and jobs, and a hook before and after every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from labelmill.contracts.errors import RemoteFailed, RequestRefused
from labelmill_worker.ports.control_plane import (
    JobOrder,
    RemoteCheckpoint,
    RemoteEvent,
    RemoteFile,
    RemoteJob,
    RemoteModel,
)

T = TypeVar("T")


class MemoryMistral:
    """Keeps files and jobs in memory. Each look at a job moves it one status on.

    `after_call(name)` is called after a call has had its effect, `before_call(name)` before.
    """

    def __init__(self) -> None:
        self.files: dict[str, RemoteFile] = {}
        self.jobs: dict[str, RemoteJob] = {}
        self.orders: list[JobOrder] = []
        self.starts: list[str] = []
        self.cancels: list[str] = []
        self.ahead = ["VALIDATING", "VALIDATED"]
        self.after_start = ["RUNNING", "SUCCESS"]
        self.before_call: Callable[[str], None] = lambda name: None
        self.after_call: Callable[[str], None] = lambda name: None

    def upload_file(self, path: Path, name: str) -> str:
        def upload() -> str:
            file = RemoteFile(f"file-{len(self.files)}", name, path.stat().st_size)
            self.files[file.id] = file
            return file.id

        return self._call("upload_file", upload)

    def find_files(self, name: str) -> list[RemoteFile]:
        return self._call("find_files", lambda: [file for file in self.files.values() if file.name == name])

    def delete_file(self, file_id: str) -> None:
        self._call("delete_file", lambda: self.files.pop(file_id, None))

    def create_job(self, order: JobOrder) -> RemoteJob:
        def create() -> RemoteJob:
            self.orders.append(order)
            job = RemoteJob(f"job-{len(self.jobs)}", "QUEUED", 1, order.training_files)
            self.jobs[job.id] = job
            return job

        return self._call("create_job", create)

    def find_job(self, training_file_id: str) -> RemoteJob | None:
        jobs = (job for job in self.jobs.values() if training_file_id in job.training_files)
        return self._call("find_job", lambda: next(jobs, None))

    def get_job(self, job_id: str) -> RemoteJob:
        def get() -> RemoteJob:
            if job_id not in self.jobs:
                raise RemoteFailed("status 404")
            path = self.after_start if job_id in self.starts else self.ahead
            if path:
                self.jobs[job_id] = self._moved(self.jobs[job_id], path.pop(0))
            return self.jobs[job_id]

        return self._call("get_job", get)

    def start_job(self, job_id: str) -> None:
        def start() -> None:
            if job_id in self.starts:
                raise RequestRefused("the job was started already", 400)
            self.starts.append(job_id)

        self._call("start_job", start)

    def cancel_job(self, job_id: str) -> None:
        self._call("cancel_job", lambda: self.cancels.append(job_id))

    def list_models(self) -> list[RemoteModel]:
        return []

    def get_model(self, model_id: str) -> RemoteModel:
        raise RemoteFailed(model_id)

    def check_key(self) -> None:
        return

    def close(self) -> None:
        return

    def _call(self, name: str, effect: Callable[[], T]) -> T:
        self.before_call(name)
        result = effect()
        self.after_call(name)
        return result

    def _moved(self, job: RemoteJob, status: str) -> RemoteJob:
        event = RemoteEvent("status-updated", 1_700_000_000 + len(job.events), {"status": status})
        job = replace(job, status=status, events=(*job.events, event))
        if status == "VALIDATED":
            job = replace(job, cost=4.5, cost_currency="EUR", expected_duration_s=60, train_tokens=10, data_tokens=5)
        if status == "RUNNING":
            job = replace(job, checkpoints=(RemoteCheckpoint(10, 0.5, 0.6),))
        if status == "SUCCESS":
            job = replace(job, fine_tuned_model=f"ft:classifier:{job.id}")
        return job
