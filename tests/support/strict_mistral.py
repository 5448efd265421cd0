"""A strict stand-in for Mistral's classifications: counts every billed text, enforces limits, injects faults."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Self

import orjson
from aiohttp import web

LABELS = ("alpha", "beta", "gamma", "delta")
KEY = "a-key-that-must-not-leak"

Reply = Callable[[list[str], dict[str, Any]], web.Response | None]


def label_of(text: str) -> str:
    """The label that the stand-in gives a text."""
    return LABELS[len(text) % len(LABELS)]


def result_of(text: str) -> dict[str, Any]:
    scores = dict.fromkeys(LABELS, 0.05)
    scores[label_of(text)] = 0.85
    return {"intent": {"scores": scores}}


class StrictMistral:
    """Serves on a thread of its own. `faults` are asked in turn before a request is answered: the first that returns a
    response wins; what they answer is not billed unless they say so themselves."""

    def __init__(self) -> None:
        self.billed: Counter[str] = Counter()
        self.requests = 0
        self.refused_429 = 0
        self.concurrent = self.most_concurrent = 0
        self.latency_s = 0.0
        self.per_second: int | None = None
        self.faults: list[Reply] = []
        self.url = ""
        self._starts: deque[float] = deque()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/classifications", self._classify)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _classify(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        texts = body["input"]
        self.requests += 1
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.Response(status=401, body=b'{"detail":"Unauthorized"}')
        if self.per_second is not None and not self._within_limit():
            self.refused_429 += 1
            return web.Response(status=429, headers={"Retry-After": "1"}, body=b'{"message":"Requests rate limit"}')
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        try:
            await asyncio.sleep(self.latency_s)
            for fault in self.faults:
                reply = fault(texts, body)
                if reply is not None:
                    return reply
            self.billed.update(texts)
            return ok([result_of(text) for text in texts])
        finally:
            self.concurrent -= 1

    def _within_limit(self) -> bool:
        now = self._loop.time()
        while self._starts and self._starts[0] <= now - 1:
            self._starts.popleft()
        if len(self._starts) >= (self.per_second or 0):
            return False
        self._starts.append(now)
        return True


def ok(results: Any) -> web.Response:
    """An answer with these results."""
    body = orjson.dumps({"id": "c-1", "model": "m", "results": results})
    return web.Response(body=body, content_type="application/json")


def refuse_texts_with(word: str, status: int = 422) -> Reply:
    """Refuse every request that holds a text with `word` in it."""

    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        del body
        if any(word in text for text in texts):
            return web.Response(status=status, body=b'{"message":"Input text refused"}')
        return None

    return reply


def first_times(count: int, make: Callable[[list[str]], web.Response]) -> Reply:
    """Answer the first `count` requests with what `make` returns."""
    left = count

    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        nonlocal left
        del body
        if left <= 0:
            return None
        left -= 1
        return make(texts)

    return reply
