"""A strict stand-in for Mistral. It counts every text it has worked on, whoever got the answer, and every job it made.

It shares no code with the emulator. What it labels a text is a function of the text, so the checker knows the truth.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from proxy import LoopThread

KEY = "chaos-key"
LABELS = ("alpha", "beta", "gamma", "delta")
GIVES_UP_AFTER_S = 4.5  #: On a busy machine the stand-in can be too slow itself: who asks waits for 5 s.
REFUSED_WORD = "forbidden"  #: Requests with such a text are refused with 422.


def label_of(text: str) -> str:
    """The label of a text."""
    return LABELS[hashlib.md5(text.encode()).digest()[0] % len(LABELS)]  # noqa: S324 - no secret


def _result_of(text: str) -> dict[str, Any]:
    scores = dict.fromkeys(LABELS, 0.05)
    scores[label_of(text)] = 0.85
    return {"intent": {"scores": scores}}


@dataclass
class Counts:
    """What a seed's work was asked for."""

    billed: Counter[str] = field(default_factory=Counter)  #: Each text, as often as it was worked on.
    spoilt: int = 0  #: Texts whose answer the stand-in itself kept back or broke: they must be asked again.
    requests: Counter[str] = field(default_factory=Counter)
    jobs_created: Counter[str] = field(default_factory=Counter)  #: By training file's name.
    jobs_started: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    peak_in_flight: int = 0


Answering = Callable[[web.Request, bytes], Any]


class Dropped(Exception):
    """The connection is to be reset."""


@dataclass
class Trouble:
    """What happens to a share of the requests. `before` acts instead of working, `after` spoils the answer's bytes."""

    name: str
    share: float
    before: Callable[[web.Request], Any] | None = None
    after: Callable[[web.Request, bytes], Any] | None = None
    paths: tuple[str, ...] = ("/v1/",)


class StandIn:
    """Serves on the runner's loop."""

    def __init__(self, serving: LoopThread, rng: random.Random) -> None:
        self._serving = serving
        self._rng = rng
        self.counts = Counts()
        self.latency_s = 0.2
        self.job_step_s = 0.3  #: A job stays in each status so long.
        self.troubles: list[Trouble] = []
        self._files: dict[str, dict[str, Any]] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.port = 0
        serving.run(self._start())

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def reset(self, rng: random.Random) -> None:
        """Forget what was counted. Files and jobs stay: models that were trained must go on answering."""
        self._rng = rng
        self.troubles = []
        self.counts = Counts(in_flight=self.counts.in_flight)

    def refuse(self) -> None:
        """Refuse connections, and reset those there are."""
        self._serving.run(self._stop_listening())

    def accept(self) -> None:
        """Listen again on the same port."""
        self._serving.run(self._listen())

    def close(self) -> None:
        """Stop."""
        if self._runner is not None:
            self._serving.run(self._runner.cleanup())

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 28, middlewares=[self._meet_trouble])
        app.add_routes([
            web.post("/v1/classifications", self._classify),
            web.post("/v1/files", self._upload), web.get("/v1/files", self._list_files),
            web.delete("/v1/files/{id}", self._delete_file),
            web.post("/v1/fine_tuning/jobs", self._create_job), web.get("/v1/fine_tuning/jobs", self._list_jobs),
            web.get("/v1/fine_tuning/jobs/{id}", self._get_job),
            web.post("/v1/fine_tuning/jobs/{id}/start", self._start_job),
            web.post("/v1/fine_tuning/jobs/{id}/cancel", self._cancel_job),
            web.get("/v1/models", self._models),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        assert self._runner is not None  # noqa: S101 - it was started
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
            await self._site.start()
            self.port = self._runner.addresses[0][1]

    async def _stop_listening(self) -> None:
        if self._site is not None:
            site, self._site = self._site, None
            server = site._server
            if server is not None:
                server.close()
            assert self._runner is not None  # noqa: S101 - it was started
            self._runner._unreg_site(site)
            for connection in list(self._runner.server.connections if self._runner.server else ()):
                if connection.transport is not None:
                    connection.transport.abort()

    @web.middleware
    async def _meet_trouble(self, request: web.Request, handler: Any) -> web.StreamResponse:
        counts, came_at = self.counts, time.monotonic()
        counts.requests[f"{request.method} {request.path.rsplit('/', 1)[-1][:20]}"] += 1
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _json({"detail": "Unauthorized"}, 401)
        trouble = next(
            (one for one in self.troubles if request.path.startswith(one.paths) and self._rng.random() < one.share),
            None,
        )
        try:
            if trouble is not None and trouble.before is not None:
                return await _as_response(trouble.before(request))
            response: web.Response = await handler(request)
            if time.monotonic() - came_at > GIVES_UP_AFTER_S and request.transport is None:
                counts.spoilt += request.get("texts", 0)  # too slow, and who asked is gone
            if trouble is not None and trouble.after is not None and response.status == 200:
                counts.spoilt += request.get("texts", 0)
                assert isinstance(response.body, bytes)  # noqa: S101 - we made it
                return await _as_response(trouble.after(request, response.body))
        except Dropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        else:
            return response

    async def _classify(self, request: web.Request) -> web.Response:
        counts = self.counts
        texts: list[str] = orjson.loads(await request.read())["input"]
        counts.in_flight += 1
        counts.peak_in_flight = max(counts.peak_in_flight, counts.in_flight)
        try:
            await asyncio.sleep(self.latency_s * self._rng.uniform(0.7, 1.3))
        finally:
            counts.in_flight -= 1
        if any(REFUSED_WORD in text for text in texts):
            return _json({"message": "Input text refused"}, 422)
        counts.billed.update(texts)
        request["texts"] = len(texts)
        return _json({"id": "c", "model": "m", "results": [_result_of(text) for text in texts]})

    # files and jobs, as far as a training needs them

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)  # noqa: S101 - a form's file
        content = upload.file.read()
        entry = {
            "id": str(uuid.uuid4()), "object": "file", "bytes": len(content), "created_at": int(time.time()),
            "filename": upload.filename, "purpose": "fine-tune", "sample_type": "instruct", "source": "upload",
        }  # fmt: skip
        self._files[entry["id"]] = entry
        return _json(entry)

    async def _list_files(self, request: web.Request) -> web.Response:
        wanted = request.query.get("search", "")
        found = [entry for entry in self._files.values() if wanted in entry["filename"]]
        return _json({"data": _page(request, found), "object": "list", "total": len(found)})

    async def _delete_file(self, request: web.Request) -> web.Response:
        found = self._files.pop(request.match_info["id"], None)
        if found is None:
            return _json({"message": "no such file"}, 404)
        return _json({"id": found["id"], "object": "file", "deleted": True})

    async def _create_job(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        training_file = body["training_files"][0]["file_id"]
        if training_file not in self._files:
            return _json({"message": "no such file"}, 404)
        self.counts.jobs_created[self._files[training_file]["filename"]] += 1
        job = {"id": str(uuid.uuid4()), "made": time.monotonic(), "started": None, "cancelled": False,
               "training_files": [training_file], "model": body["model"], "auto_start": body.get("auto_start", True),
               "created_at": int(time.time())}  # fmt: skip
        self._jobs[job["id"]] = job
        return _json(self._shown(job))

    async def _list_jobs(self, request: web.Request) -> web.Response:
        jobs = [self._shown(job) for job in reversed(self._jobs.values())]
        return _json({"data": _page(request, jobs), "object": "list", "total": len(jobs)})

    async def _get_job(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["id"])
        return _json({"message": "no such job"}, 404) if job is None else _json(self._shown(job))

    async def _start_job(self, request: web.Request) -> web.Response:
        job = self._jobs[request.match_info["id"]]
        if self._status(job) != "VALIDATED":
            return _json({"message": f"job is {self._status(job)}"}, 400)
        job["started"] = time.monotonic()
        self.counts.jobs_started[self._files[job["training_files"][0]]["filename"]] += 1
        return _json(self._shown(job))

    async def _cancel_job(self, request: web.Request) -> web.Response:
        job = self._jobs[request.match_info["id"]]
        job["cancelled"] = True
        return _json(self._shown(job))

    async def _models(self, request: web.Request) -> web.Response:
        del request
        return _json({"object": "list", "data": []})

    def _status(self, job: dict[str, Any]) -> str:
        if job["cancelled"]:
            return "CANCELLED"
        now, step = time.monotonic(), self.job_step_s
        if job["started"] is not None:
            return "SUCCESS" if now - job["started"] > 2 * step else "RUNNING"
        return ("QUEUED", "VALIDATING", "VALIDATED")[min(2, int((now - job["made"]) / step))]

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        status = self._status(job)
        shown = {
            "id": job["id"], "object": "job", "job_type": "classifier", "status": status, "model": job["model"],
            "auto_start": job["auto_start"], "created_at": job["created_at"], "modified_at": job["created_at"],
            "training_files": job["training_files"], "validation_files": [], "hyperparameters": {},
            "integrations": [], "events": [], "checkpoints": [], "classifier_targets": [],
        }  # fmt: skip
        if status in ("VALIDATED", "RUNNING", "SUCCESS"):
            shown["metadata"] = {"cost": 1.0, "cost_currency": "EUR", "expected_duration_seconds": 1,
                                 "train_tokens_per_step": 1, "train_tokens": 100, "data_tokens": 100}  # fmt: skip
        if status == "SUCCESS":
            shown["fine_tuned_model"] = f"ft:classifier:chaos:{job['id']}"
        return shown


async def _as_response(made: Any) -> web.StreamResponse:
    found = await made if asyncio.iscoroutine(made) else made
    assert isinstance(found, web.StreamResponse)  # noqa: S101 - troubles return responses
    return found


def _page(request: web.Request, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    number, size = int(request.query.get("page", 0)), int(request.query.get("page_size", 100))
    return entries[number * size : (number + 1) * size]


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
