"""A strict stand-in for Mistral. It counts every text it has worked on, also where the answer was lost, and every job.

It shares no code with the emulator, nor with the stand-in of the tests: what was paid for is counted independently of
both. What it answers is a function of the text (`answers`), so the checker knows the
truth.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from answers import REFUSED_WORD, completed, embedded, is_own_question, result_of
from proxy import LoopThread
from remote_batches import RemoteBatches
from remote_jobs import RemoteJobs, answer

KEY = "chaos-key"
KNOWN_MODEL = "ft:classifier:chaos:known"  #: A model that was trained long ago.
GIVES_UP_AFTER_S = 4.5  #: On a busy machine the stand-in can be too slow itself: clients wait for 5 s.
CLASSIFICATIONS, EMBEDDINGS, COMPLETIONS = "/v1/classifications", "/v1/embeddings", "/v1/chat/completions"
NO_LOGPROBS = {"message": "body.logprobs: Extra inputs are not permitted"}  #: Of a server that does not know them.
PAID = (CLASSIFICATIONS, EMBEDDINGS, COMPLETIONS)  #: The calls that carry texts.


@dataclass
class Counts:
    """What a seed's work was asked for. By kind of call, as in `PAID`."""

    billed: dict[str, Counter[str]] = field(default_factory=lambda: {path: Counter() for path in PAID})
    #: Each text, as often as it was worked on.
    spoilt: Counter[str] = field(default_factory=Counter)
    #: Texts whose answer the stand-in itself kept back or broke: they must be asked again.
    requests: Counter[str] = field(default_factory=Counter)


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
        self.jobs = RemoteJobs()
        self.batches = RemoteBatches(self.jobs, self._work_on_call, self._note_spoilt)
        self.latency_s = 0.2
        self.troubles: list[Trouble] = []
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._resets = 0  # how often every connection was reset
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
        self.counts = Counts()
        self.jobs.reset()
        self.batches.reset(rng)

    def refuse(self) -> None:
        """Refuse connections, and reset those there are: what is under way there is paid for and lost."""
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
        app.add_routes(
            [
                web.post(CLASSIFICATIONS, self._classify),
                web.post(EMBEDDINGS, self._embed),
                web.post(COMPLETIONS, self._complete),
                *self.jobs.routes(),
                *self.batches.routes(),
            ]
        )
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
            self._resets += 1
            for connection in list(self._runner.server.connections if self._runner.server else ()):
                if connection.transport is not None:
                    connection.transport.abort()

    @web.middleware
    async def _meet_trouble(self, request: web.Request, handler: Any) -> web.StreamResponse:
        counts, came_at = self.counts, time.monotonic()
        request["resets"] = self._resets
        counts.requests[f"{request.method} {request.path}"[:40]] += 1
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return answer({"detail": "Unauthorized"}, 401)
        trouble = next(
            (one for one in self.troubles if request.path.startswith(one.paths) and self._rng.random() < one.share),
            None,
        )
        try:
            if trouble is not None and trouble.before is not None:
                return await _as_response(trouble.before(request))
            response: web.Response = await handler(request)
            if time.monotonic() - came_at > GIVES_UP_AFTER_S and request.transport is None:
                counts.spoilt[request.path] += request.get("texts", 0)  # too slow, and who asked is gone
            if trouble is not None and trouble.after is not None and response.status == 200:
                counts.spoilt[request.path] += request.get("texts", 0)
                assert isinstance(response.body, bytes)  # noqa: S101 - we made it
                return await _as_response(trouble.after(request, response.body))
        except Dropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        else:
            return response

    def _note_spoilt(self, path: str, texts: int) -> None:
        self.counts.spoilt[path] += texts

    def _work_on_call(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], list[str]]:
        """Answer a call of a batch job: its status, its document, and the texts that it is paid for."""
        texts = [body["messages"][-1]["content"]] if path == COMPLETIONS else body["input"]
        texts = [texts] if isinstance(texts, str) else texts
        if path == COMPLETIONS and "logprobs" in body:
            return 422, NO_LOGPROBS, []
        if any(REFUSED_WORD in text for text in texts):
            return 422, {"message": "Input text refused"}, []
        self.counts.requests[f"BATCH {path}"] += 1
        if path == COMPLETIONS and is_own_question(body):
            return 200, completed(body), []
        self.counts.billed[path].update(texts)
        if path == EMBEDDINGS:
            return 200, embedded(body["model"], texts), texts
        if path == COMPLETIONS:
            return 200, completed(body), texts
        targets = ("intent",) if body["model"] == KNOWN_MODEL else self.jobs.targets_of(body["model"]) or ()
        return 200, {"id": "c", "model": body["model"], "results": [result_of(text, targets) for text in texts]}, texts

    async def _classify(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        model, texts = body["model"], body["input"]
        targets = ("intent",) if model == KNOWN_MODEL else self.jobs.targets_of(model)
        if targets is None:
            return answer({"message": f"Invalid model: {model}", "type": "invalid_model", "code": "1500"}, 400)
        made = lambda: {"id": "c", "model": model, "results": [result_of(text, targets) for text in texts]}  # noqa: E731
        return await self._worked_on(request, texts, made)

    async def _embed(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if body["model"] != "mistral-embed":
            return answer({"message": f"Invalid model: {body['model']}", "code": "1500"}, 400)
        return await self._worked_on(request, body["input"], lambda: embedded(body["model"], body["input"]))

    async def _complete(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if "logprobs" in body:
            return answer(NO_LOGPROBS, 422)
        if is_own_question(body):
            return answer(completed(body))
        return await self._worked_on(request, [body["messages"][-1]["content"]], lambda: completed(body))

    async def _worked_on(self, request: web.Request, texts: list[str], made: Callable[[], Any]) -> web.Response:
        counts = self.counts
        await asyncio.sleep(self.latency_s * self._rng.uniform(0.7, 1.3))
        if any(REFUSED_WORD in text for text in texts):
            return answer({"message": "Input text refused"}, 422)
        counts.billed[request.path].update(texts)
        if request["resets"] != self._resets:
            counts.spoilt[request.path] += len(texts)  # its connection is gone, and the answer with it
        request["texts"] = len(texts)
        return answer(made())


async def _as_response(made: Any) -> web.StreamResponse:
    found = await made if asyncio.iscoroutine(made) else made
    assert isinstance(found, web.StreamResponse)  # noqa: S101 - troubles return responses
    return found
