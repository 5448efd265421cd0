"""The stand-in's batch jobs, and what may become of a job and of the lines of its results. It counts each job by the
marker in its metadata."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from remote_jobs import RemoteJobs, answer

STEP_S = 0.4  #: A job waits so long, and runs twice as long.
MARKER = "labelmill"  #: The key of the marker.

Line = dict[str, Any]
#: Works on the body of a call: its HTTP status, its document, and the texts that are paid for.
WorkOn = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any], list[str]]]


@dataclass
class BatchTrouble:
    """What happens to jobs that end while it lasts. `ends`: in which status, with the first `share` of the calls
    answered. `spoil` gets a line of results and returns the lines in its place. `loses`: which files are not there."""

    name: str
    ends: str = "SUCCESS"
    share: float = 1.0
    spoil: Callable[[Line], list[Line]] | None = None
    spoils: float = 0.3  #: The share of lines that `spoil` gets.
    is_spoilt: bool = False  #: Whether the answers of such lines are lost.
    loses: str = ""  #: "files": their ids are not told; "contents": they are gone; "job": so is the job.


@dataclass
class _Job:
    body: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    made: float = field(default_factory=time.monotonic)
    created_at: int = field(default_factory=lambda: int(time.time()))
    cancelled: bool = False
    end: str | None = None
    total: int = 0
    failed: int = 0
    succeeded: int = 0
    output_file: str | None = None
    error_file: str | None = None
    is_known: bool = True

    @property
    def marker(self) -> str:
        return str((self.body.get("metadata") or {}).get(MARKER, "without a marker"))


class RemoteBatches:
    """Knows every job. `spoilt` is told of texts that were paid for and whose answers nobody can read."""

    def __init__(self, files: RemoteJobs, work_on: WorkOn, spoilt: Callable[[str, int], None]) -> None:
        self.created: Counter[str] = Counter()  #: By marker.
        self.troubles: list[BatchTrouble] = []
        self._files, self._work_on, self._spoilt = files, work_on, spoilt
        self._jobs: dict[str, _Job] = {}
        self._rng = random.Random(0)

    def reset(self, rng: random.Random) -> None:
        """Forget what was counted. Jobs stay."""
        self.created, self.troubles, self._rng = Counter(), [], rng

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        jobs = "/v1/batch/jobs"
        return [
            web.post(jobs, self._create),
            web.get(jobs, self._list),
            web.get(f"{jobs}/{{id}}", self._get),
            web.post(f"{jobs}/{{id}}/cancel", self._cancel),
            web.delete(f"{jobs}/{{id}}", self._delete),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if unknown := set(body) - {"endpoint", "input_files", "requests", "model", "metadata", "timeout_hours"}:
            return answer({"detail": [{"loc": ["body", min(unknown)], "msg": "extra", "type": "extra_forbidden"}]}, 422)
        if any(self._files.content_of(file_id) is None for file_id in body.get("input_files") or ()):
            return answer({"message": "no such file"}, 404)
        job = _Job(body)
        self._jobs[job.id] = job
        self.created[job.marker] += 1
        return answer(self._shown(job))

    async def _list(self, request: web.Request) -> web.Response:
        number, size = int(request.query.get("page", 0)), int(request.query.get("page_size", 100))
        known = [job for job in reversed(self._jobs.values()) if job.is_known]
        shown = [self._shown(job) for job in known[number * size : (number + 1) * size]]
        return answer({"data": shown, "object": "list", "total": len(known)})

    async def _get(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["id"])
        if job is None:
            return answer({"message": "no such job"}, 404)
        shown = self._shown(job)
        return answer(shown) if job.is_known else answer({"message": "no such job"}, 404)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["id"])
        if job is None or not job.is_known:
            return answer({"message": "no such job"}, 404)
        job.cancelled = True
        return answer(self._shown(job))

    async def _delete(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["id"])
        if job is None or not job.is_known:
            return answer({"message": "no such job"}, 404)
        job.is_known = False
        return answer({"id": job.id, "object": "batch", "deleted": True})

    def _shown(self, job: _Job) -> dict[str, Any]:
        if job.end is None:
            waited_s = time.monotonic() - job.made
            if job.cancelled and waited_s > STEP_S:
                self._finish(job, BatchTrouble("cancelled", ends="CANCELLED", share=self._rng.random()))
            elif waited_s > 3 * STEP_S:
                self._finish(job, self._rng.choice(self.troubles) if self.troubles else BatchTrouble("none"))
        running = "RUNNING" if time.monotonic() - job.made > STEP_S else "QUEUED"
        return {
            "id": job.id,
            "object": "batch",
            "input_files": job.body.get("input_files") or [],
            "endpoint": job.body["endpoint"],
            "model": job.body.get("model"),
            "metadata": job.body.get("metadata"),
            "errors": [{"message": "a bad day", "count": 1}] if job.end == "FAILED" else [],
            "status": job.end or ("CANCELLATION_REQUESTED" if job.cancelled else running),
            "created_at": job.created_at,
            "total_requests": job.total,
            "completed_requests": job.succeeded + job.failed,
            "succeeded_requests": job.succeeded,
            "failed_requests": job.failed,
            "output_file": job.output_file,
            "error_file": job.error_file,
        }

    def _finish(self, job: _Job, trouble: BatchTrouble) -> None:
        """Work on the calls, in some order, and write the files."""
        calls = self._calls_of(job)
        self._rng.shuffle(calls)
        job.end, job.total = trouble.ends, len(calls)
        files: dict[bool, list[Line]] = {True: [], False: []}
        endpoint, paid = job.body["endpoint"], 0
        for call in calls[: round(trouble.share * len(calls))]:
            status, document, texts = self._work_on(endpoint, {"model": job.body.get("model")} | call["body"])
            is_answer = status == 200
            job.succeeded += is_answer
            job.failed += not is_answer
            line = {"custom_id": call.get("custom_id"), "response": {"status_code": status, "body": document}}
            line["error"] = None if is_answer else self._rng.choice((document, str(document)))
            lines = [line]
            paid += len(texts)
            if trouble.spoil is not None and self._rng.random() < trouble.spoils:
                lines = trouble.spoil(line)
                if trouble.is_spoilt:
                    self._spoilt(endpoint, len(texts))
            files[is_answer] += lines
        if trouble.loses:
            self._spoilt(endpoint, paid)
        if trouble.loses == "job":
            job.is_known = False
            self.created[job.marker] -= 1  # nobody can find it any more: another one may be made
        if trouble.loses not in ("files", "job"):
            job.output_file, job.error_file = self._written(job, files[True]), self._written(job, files[False])
        if trouble.loses == "contents":
            for file_id in filter(None, (job.output_file, job.error_file)):
                self._files.forget(file_id)

    def _calls_of(self, job: _Job) -> list[Line]:
        if job.body.get("requests"):
            return list(job.body["requests"])
        contents = [self._files.content_of(file_id) or b"" for file_id in job.body.get("input_files") or ()]
        return [orjson.loads(line) for content in contents for line in content.splitlines()]

    def _written(self, job: _Job, lines: list[Line]) -> str | None:
        if not lines:
            return None
        return self._files.keep(f"{job.id}.jsonl", "batch", b"".join(orjson.dumps(line) + b"\n" for line in lines))
