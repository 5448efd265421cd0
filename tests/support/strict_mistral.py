"""A strict stand-in for Mistral's answers to texts: counts every billed text, enforces limits, injects faults."""

from __future__ import annotations

import asyncio
import hashlib
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
        self.bodies: deque[dict[str, Any]] = deque(maxlen=1000)
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
        app.router.add_post("/v1/chat/classifications", self._classify)
        app.router.add_post("/v1/embeddings", self._classify)
        app.router.add_post("/v1/chat/completions", self._classify)
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
        path = request.path
        if path == "/v1/chat/completions":
            texts = [body["messages"][-1]["content"]]
        elif path == "/v1/chat/classifications":
            texts = [chat["messages"][-1]["content"] for chat in body["input"]]
        else:
            texts = body["input"]
        self.requests += 1
        self.bodies.append(body)
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
            if path == "/v1/embeddings":
                return embedded(texts)
            if path == "/v1/chat/completions":
                return completed(body)
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


def vector_of(text: str) -> list[float]:
    """1024 numbers in which the text's label can be read."""
    vector = [float(digit) / 255 for digit in hashlib.shake_128(text.encode()).digest(1024)]
    place = LABELS.index(label_of(text))
    return [number + 20.0 if at == place else number for at, number in enumerate(vector)]


def embedded(texts: list[str]) -> web.Response:
    """Vectors, in another order than the texts: `index` says whose each is."""
    data = [{"object": "embedding", "index": at, "embedding": vector_of(text)} for at, text in enumerate(texts)]
    usage = {"prompt_tokens": 7 * len(texts), "completion_tokens": 0, "total_tokens": 7 * len(texts)}
    body = {"id": "e-1", "object": "list", "model": "mistral-embed", "data": data[::-1], "usage": usage}
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def completed(body: dict[str, Any], content: str | None = None, finish: str = "stop") -> web.Response:
    """An answer that follows the request's schema: the text's label for every target that has it, else
    the first, or of several none."""
    if content is None:
        label = label_of(body["messages"][-1]["content"])
        answer: dict[str, Any] = {}
        for name, part in body["response_format"]["json_schema"]["schema"]["properties"].items():
            labels = part["items"]["enum"] if part["type"] == "array" else part["enum"]
            if part["type"] == "array":
                answer[name] = [label] if label in labels else []
            else:
                answer[name] = label if label in labels else labels[0]
        content = orjson.dumps(answer).decode()
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
    reply = {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
        "usage": usage,
    }
    return web.Response(body=orjson.dumps(reply), content_type="application/json")


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
