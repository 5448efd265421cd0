"""Mistral in memory, behind both ports. Of calls that carry texts it counts every billed text, enforces limits
and injects faults; of the control plane it keeps files, jobs and models, with a hook before and after every call."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from mistral_answers import KEY, completed, embedded, moderated, ok, prompted_texts, result_of
from mistral_answers import Reply as Fault

from labelmill.contracts.errors import RemoteFailed, RequestRefused
from labelmill_worker.mistral.replies import read_reply
from labelmill_worker.ports.control_plane import (
    JobOrder,
    RemoteCheckpoint,
    RemoteEvent,
    RemoteFile,
    RemoteJob,
    RemoteModel,
)
from labelmill_worker.ports.inference import Call, Endpoint, Reply

T = TypeVar("T")


class MemoryMistral:
    """Answers texts, and keeps files, jobs and models. Each poll of a job moves it one status on.

    `faults` are asked in turn before a call is answered: the first that returns a response wins; what they answer is
    not billed unless they say so themselves. `after_call(name)` is called after a call of the control plane has had its
    effect, `before_call(name)` before.
    """

    def __init__(self) -> None:
        self.billed: Counter[str] = Counter()
        self.requests = 0
        self.bodies: deque[dict[str, Any]] = deque(maxlen=1000)
        self.refused_429 = 0
        self.concurrent = self.most_concurrent = 0
        self.latency_s = 0.0
        self.holds: Callable[[], bool] = lambda: False  #: While it returns True nothing is answered.
        self.per_second: int | None = None
        self.faults: list[Fault] = []
        self._starts: deque[float] = deque()
        self.models: dict[str, bool] = {}  #: id → is archived
        self.files: dict[str, RemoteFile] = {}
        self.uploads: list[str] = []  #: Names, of files that were deleted since too.
        self.jobs: dict[str, RemoteJob] = {}
        self.orders: list[JobOrder] = []
        self.starts: list[str] = []
        self.cancels: list[str] = []
        self.ahead = ["VALIDATING", "VALIDATED"]
        self.after_start = ["RUNNING", "SUCCESS"]
        self.before_call: Callable[[str], None] = lambda name: None
        self.after_call: Callable[[str], None] = lambda name: None

    @property
    def inference(self) -> MemoryInference:
        """The port of calls that carry texts."""
        return MemoryInference(self)

    async def answer(self, call: Call, *, has_key: bool = True) -> web.Response:
        """What Mistral says to a call."""
        body: dict[str, Any] = dict(call.body)
        texts = texts_of(call)
        self.requests += 1
        self.bodies.append(body)
        if not has_key:
            return web.Response(status=401, body=b'{"detail":"Unauthorized"}')
        if self.per_second is not None and not self._within_limit(self.per_second):
            self.refused_429 += 1
            return web.Response(status=429, headers={"Retry-After": "1"}, body=b'{"message":"Requests rate limit"}')
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        try:
            await asyncio.sleep(self.latency_s)
            while self.holds():  # noqa: ASYNC110 - what it looks at changes in other threads
                await asyncio.sleep(0.005)
            for fault in self.faults:
                said = fault(texts, body)
                if said is not None:
                    return said
            self.billed.update(texts)
            if call.endpoint is Endpoint.EMBEDDINGS:
                return embedded(texts)
            if call.endpoint is Endpoint.CHAT_COMPLETIONS:
                return completed(body)
            if call.endpoint in (Endpoint.MODERATIONS, Endpoint.CHAT_MODERATIONS):
                return ok([moderated(text) for text in texts])
            return ok([result_of(text) for text in texts])
        finally:
            self.concurrent -= 1

    def _within_limit(self, per_second: int) -> bool:
        now = time.monotonic()
        while self._starts and self._starts[0] <= now - 1:
            self._starts.popleft()
        if len(self._starts) >= per_second:
            return False
        self._starts.append(now)
        return True

    def upload_file(self, path: Path, name: str, expiry_hours: int) -> str:
        del expiry_hours

        def upload() -> str:
            file = RemoteFile(f"file-{len(self.uploads)}", name, path.stat().st_size)
            self.files[file.id] = file
            self.uploads.append(name)
            return file.id

        return self._call("upload_file", upload)

    def find_files(self, name: str) -> list[RemoteFile]:
        return self._call("find_files", lambda: [file for file in self.files.values() if file.name == name])

    def find_files_of(self, training_id: str) -> list[RemoteFile]:
        found = [file for file in self.files.values() if file.name.startswith(f"{training_id}-")]
        return self._call("find_files_of", lambda: found)

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
        return [RemoteModel(model_id, is_archived=is_archived) for model_id, is_archived in self.models.items()]

    def get_model(self, model_id: str) -> RemoteModel:
        if model_id not in self.models:
            raise RemoteFailed("Mistral knows no such thing (status 404)")
        return RemoteModel(model_id, is_archived=self.models[model_id])

    def archive_model(self, model_id: str) -> None:
        self._call("archive_model", lambda: self._set_archived(model_id, is_archived=True))

    def unarchive_model(self, model_id: str) -> None:
        self._call("unarchive_model", lambda: self._set_archived(model_id, is_archived=False))

    def delete_model(self, model_id: str) -> None:
        def delete() -> None:
            if self.models.pop(model_id, None) is None:
                raise RemoteFailed("Mistral knows no such thing (status 404)")

        self._call("delete_model", delete)

    def _set_archived(self, model_id: str, *, is_archived: bool) -> None:
        if self.get_model(model_id).is_archived is is_archived:
            raise RequestRefused("it is so already", 400)
        self.models[model_id] = is_archived

    def check_factory(self) -> None:
        self._call("check_factory", lambda: None)

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
            self.models[f"ft:classifier:{job.id}"] = False
        return job


class MemoryInference:
    """Sends calls as the realtime adapter does, without a network."""

    def __init__(self, mistral: MemoryMistral) -> None:
        self._mistral = mistral

    async def send(self, call: Call) -> Reply:
        said = await self._mistral.answer(call)
        payload = said.body if isinstance(said.body, bytes) else b""
        return read_reply(said.status, payload, said.headers.get("Retry-After"), [KEY], decode=call.decode)

    async def close(self) -> None:
        return


def texts_of(call: Call) -> list[str]:
    """The texts that a call asks about: of a chat those of its last message."""
    if call.endpoint is Endpoint.CHAT_COMPLETIONS:
        return prompted_texts(dict(call.body))
    inputs = call.body["input"]
    if isinstance(inputs, str | dict) or (call.endpoint is Endpoint.CHAT_MODERATIONS and isinstance(inputs[0], dict)):
        inputs = [inputs]  # one alone
    if call.endpoint is Endpoint.CHAT_CLASSIFICATIONS:
        return [chat["messages"][-1]["content"] for chat in inputs]
    if call.endpoint is Endpoint.CHAT_MODERATIONS:
        return [chat[-1]["content"] for chat in inputs]
    return list(inputs)
