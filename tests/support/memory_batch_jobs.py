"""Mistral's Batch API in memory, behind its port: a `MemoryMistral` answers the calls of its jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
from memory_mistral import MemoryMistral

from labelmill.contracts.errors import BillingRequired, RemoteFailed
from labelmill_worker.mistral.result_lines import read_entry, read_line
from labelmill_worker.ports.batch_jobs import (
    CANCELLATION_REQUESTED,
    CANCELLED,
    QUEUED,
    RUNNING,
    SUCCESS,
    NumberedCall,
    RemoteBatch,
    ResultLine,
)
from labelmill_worker.ports.control_plane import RemoteFile
from labelmill_worker.ports.inference import Call, Endpoint

T = TypeVar("T")
Line = dict[str, Any]


def _as_they_are(lines: list[Line]) -> list[Line]:
    return lines


class MemoryBatchJobs:
    """Each poll of a job moves it one status on, along `statuses` as they were when the job was created; in a status
    that is an end the first `answered_share` of its calls have been answered.

    `spoil_output` and `spoil_errors` get the lines of a file and return those that it holds. `before_call(name)` and
    `after_call(name)` of the `MemoryMistral` are called around every call, with the name of the port's method.
    """

    def __init__(self, mistral: MemoryMistral) -> None:
        self.mistral = mistral
        self.has_billing = True
        self.statuses = [RUNNING, SUCCESS]
        self.answered_share = 1.0
        self.ending_polls = 0  #: That still find a job being stopped.
        self.spoil_output: Callable[[list[Line]], list[Line]] = _as_they_are
        self.spoil_errors: Callable[[list[Line]], list[Line]] = _as_they_are
        self.files: dict[str, RemoteFile] = {}
        self.contents: dict[str, bytes] = {}
        self.jobs: dict[str, RemoteBatch] = {}
        self.created: list[RemoteBatch] = []  #: Every job that was ever created, as it was then.
        self.timeouts_h: list[int] = []
        self.expiries_h: list[int] = []
        self._ahead: dict[str, list[str]] = {}
        self._calls: dict[str, list[Line]] = {}
        self._outputs: dict[str, list[Line]] = {}
        self._made = 0

    def upload(self, path: Path, name: str, expiry_hours: int) -> str:
        def upload() -> str:
            self.expiries_h.append(expiry_hours)
            return self._kept(name, path.read_bytes())

        return self._call("upload", upload)

    def find_files(self, name: str) -> list[RemoteFile]:
        return self._call("find_files", lambda: [file for file in self.files.values() if file.name == name])

    def delete_file(self, file_id: str) -> None:
        def delete() -> None:
            self.files.pop(file_id, None)
            self.contents.pop(file_id, None)

        self._call("delete_file", delete)

    def create(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        file_id: str | None = None,
        calls: Sequence[NumberedCall] = (),
        metadata: Mapping[str, str],
        timeout_hours: int,
    ) -> RemoteBatch:
        def create() -> RemoteBatch:
            self._require_billing()
            lines: list[Line] = [{"custom_id": one.custom_id, "body": dict(one.call.body)} for one in calls]
            if file_id is not None:
                lines += map(orjson.loads, self._content(file_id).splitlines())
            job = RemoteBatch(self._new_id("batch"), QUEUED, endpoint.value, int(time.time()), dict(metadata))
            self.jobs[job.id] = job
            self.created.append(job)
            self.timeouts_h.append(timeout_hours)
            self._ahead[job.id], self._calls[job.id] = list(self.statuses), lines
            for line in lines:
                line["body"].setdefault("model", model)
            return job

        return self._call("create", create)

    def find(self, metadata: Mapping[str, str], created_after: float) -> list[RemoteBatch]:
        def find() -> list[RemoteBatch]:
            self._require_billing()
            return [
                job
                for job in self.jobs.values()
                if job.created_at >= int(created_after) and metadata.items() <= job.metadata.items()
            ]

        return self._call("find", find)

    def get(self, job_id: str) -> RemoteBatch:
        def get() -> RemoteBatch:
            job = self._found(job_id)
            if not job.has_ended and self._ahead[job_id]:
                job = self.jobs[job_id] = self._moved(job, self._ahead[job_id].pop(0))
            return job

        return self._call("get", get)

    def cancel(self, job_id: str) -> RemoteBatch:
        def cancel() -> RemoteBatch:
            job = self._found(job_id)
            if not job.has_ended:
                self._ahead[job_id] = [*[CANCELLATION_REQUESTED] * self.ending_polls, CANCELLED]
                job = self.jobs[job_id] = replace(job, status=CANCELLATION_REQUESTED)
            return job

        return self._call("cancel", cancel)

    def delete_job(self, job_id: str) -> None:
        self._call("delete_job", lambda: self.jobs.pop(job_id, None))

    def results(self, file_id: str) -> Iterator[ResultLine]:
        for line in self._call("results", lambda: self._content(file_id)).splitlines():
            yield read_line(line)

    def inline_results(self, job_id: str) -> Iterator[ResultLine]:
        self._call("inline_results", lambda: self._found(job_id))
        yield from map(read_entry, self._outputs.get(job_id, ()))

    def check_billing(self) -> None:
        self._call("check_billing", self._require_billing)

    def close(self) -> None:
        return

    def _call(self, name: str, effect: Callable[[], T]) -> T:
        self.mistral.before_call(name)
        result = effect()
        self.mistral.after_call(name)
        return result

    def _require_billing(self) -> None:
        if not self.has_billing:
            raise BillingRequired("Mistral runs batch jobs only for workspaces with billing")

    def _found(self, job_id: str) -> RemoteBatch:
        if job_id not in self.jobs:
            raise RemoteFailed("Mistral knows no such thing (status 404)")
        return self.jobs[job_id]

    def _content(self, file_id: str) -> bytes:
        if file_id not in self.contents:
            raise RemoteFailed("Mistral knows no such thing (status 404)")
        return self.contents[file_id]

    def _kept(self, name: str, content: bytes) -> str:
        file = RemoteFile(self._new_id("file"), name, len(content))
        self.files[file.id], self.contents[file.id] = file, content
        return file.id

    def _new_id(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}"

    def _moved(self, job: RemoteBatch, status: str) -> RemoteBatch:
        lines = self._calls[job.id]
        job = replace(job, status=status, total_requests=len(lines))
        if status == RUNNING:
            return replace(job, started_at=int(time.time()))
        if not job.has_ended:
            return job
        answered = lines[: round(self.answered_share * len(lines))]
        entries = asyncio.run(self._answered(Endpoint(job.endpoint), answered))
        good = [entry for entry in entries if entry["response"]["status_code"] == 200]
        bad = [entry for entry in entries if entry["response"]["status_code"] != 200]
        self._outputs[job.id] = entries
        return replace(
            job,
            succeeded_requests=len(good),
            failed_requests=len(bad),
            output_file=self._result_file(job, "output", self.spoil_output(good)),
            error_file=self._result_file(job, "errors", self.spoil_errors(bad)),
            completed_at=int(time.time()),
        )

    def _result_file(self, job: RemoteBatch, kind: str, lines: list[Line]) -> str | None:
        if not lines:
            return None
        return self._kept(f"{job.id}-{kind}.jsonl", b"".join(orjson.dumps(line) + b"\n" for line in lines))

    async def _answered(self, endpoint: Endpoint, lines: list[Line]) -> list[Line]:
        """What the calls were answered, in another order."""
        entries = []
        for line in reversed(lines):
            said = await self.mistral.answer(Call(endpoint, line["body"]))
            body = orjson.loads(said.body) if isinstance(said.body, bytes) else None
            entry: Line = {"id": f"line-{line['custom_id']}", "custom_id": line["custom_id"], "error": None}
            entry["response"] = {"status_code": said.status, "body": body if said.status == 200 else None}
            if said.status != 200:
                entry["error"] = body
            entries.append(entry)
        return entries
