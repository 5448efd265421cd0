"""A stand-in for classifications and chats that costs next to nothing: canned scores, a latency, an exact rate limit.

It measures clients, so it does as little as it can: a raw asyncio protocol, answers serialised once. The limit is a
sliding window of one second: a request more than `rate` within any second gets a 429.

    python ops/bench/canned_server.py --port 9000

`GET /stats` tells what was asked; `POST /reset` with `{"latency_s": 0.05, "rate": 0}` starts anew (rate 0: no limit).
It remembers a hash of each text to count the distinct ones; not so with `"keep_texts": false`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import deque
from functools import cache
from typing import Any

import orjson

LABELS = tuple(f"label_{index:02d}" for index in range(16))
_VARIANTS = 8  # different answers for each size, so that no label is always the best
_END_OF_HEAD = b"\r\n\r\n"


class Canned:
    """What is answered, and what was asked so far."""

    def __init__(self) -> None:
        self.reset(0.0, 0.0)

    def reset(self, latency_s: float, rate: float, *, keep_texts: bool = True) -> None:
        """Forget what was asked."""
        self.keep_texts = keep_texts
        self.latency_s = latency_s
        self.rate = rate
        self.requests = self.rejected = self.texts = 0
        self.hashes: set[int] = set()
        self.first_s: float | None = None
        self.last_s: float | None = None
        self._window: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Whether the limit lets one more request through."""
        if not self.rate:
            return True
        while self._window and now - self._window[0] >= 1.0:
            self._window.popleft()
        if len(self._window) >= self.rate:
            return False
        self._window.append(now)
        return True

    def answer(self, body: bytes, *, chat: bool = False) -> tuple[bytes, float]:
        """The whole response to a classification or a chat, and after how many seconds to send it."""
        now = time.monotonic()
        if not self.admits(now):
            self.rejected += 1
            return response(429, b'{"message":"Requests rate limit exceeded"}', b"Retry-After: 1\r\n"), 0.0
        document = orjson.loads(body)
        # a client may ask with no message at all, to read the limits from the answer's headers
        texts = [one["content"] for one in document["messages"][-1:]] if chat else document["input"]
        texts = [texts] if isinstance(texts, str) else texts
        self.requests += 1
        self.texts += len(texts)
        if self.keep_texts:
            self.hashes.update(map(hash, texts))
        self.first_s = now if self.first_s is None else self.first_s
        self.last_s = now
        variant = self.requests % _VARIANTS
        return canned_chat(variant) if chat else canned_response(len(texts), variant), self.latency_s

    def stats(self) -> dict[str, Any]:
        """Counts since the last reset. `first_s` and `last_s` are moments of admitted requests."""
        return {
            "requests": self.requests,
            "rejected": self.rejected,
            "texts": self.texts,
            "distinct": len(self.hashes),
            "first_s": self.first_s,
            "last_s": self.last_s,
        }


def response(status: int, body: bytes, headers: bytes = b"") -> bytes:
    """An HTTP/1.1 response that keeps the connection."""
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(body))
    return head + headers + b"\r\n" + body


@cache
def canned_response(count: int, variant: int) -> bytes:
    """The answer to `count` texts. The same every time."""
    rng = random.Random(variant)
    results = []
    for _ in range(count):
        weights = [rng.random() ** 8 for _ in LABELS]
        total = sum(weights)
        results.append({"intent": {"scores": {name: w / total for name, w in zip(LABELS, weights, strict=True)}}})
    return response(200, orjson.dumps({"id": "canned", "model": "canned", "results": results}))


@cache
def canned_chat(variant: int) -> bytes:
    """The answer to a chat that asks for a label in JSON."""
    message = {"role": "assistant", "content": orjson.dumps({"intent": LABELS[variant]}).decode()}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    document = {"id": "canned", "object": "chat.completion", "created": 0, "model": "canned", "choices": choices}
    return response(200, orjson.dumps(document | {"usage": usage}))


class _Connection(asyncio.Protocol):
    def __init__(self, canned: Canned, loop: asyncio.AbstractEventLoop) -> None:
        self._canned = canned
        self._loop = loop
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server's transport is one
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(_END_OF_HEAD)) >= 0:
            head = self._held[:end]
            length = _content_length(head)
            start = end + len(_END_OF_HEAD)
            if len(self._held) < start + length:
                return
            body, self._held = self._held[start : start + length], self._held[start + length :]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /v1/classifications"):
            answer, delay_s = self._canned.answer(body)
        elif head.startswith(b"POST /v1/chat/completions"):
            answer, delay_s = self._canned.answer(body, chat=True)
        elif head.startswith(b"GET /stats"):
            answer, delay_s = response(200, orjson.dumps(self._canned.stats())), 0.0
        elif head.startswith(b"POST /reset"):
            self._canned.reset(**orjson.loads(body))
            answer, delay_s = response(200, b"{}"), 0.0
        else:
            answer, delay_s = response(404, b'{"message":"no such path"}'), 0.0
        if delay_s:
            self._loop.call_later(delay_s, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    if at < 0:
        return 0
    end = head.find(b"\r\n", at)
    return int(head[at + 15 : end if end >= 0 else len(head)])


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    canned = Canned()
    server = await loop.create_server(lambda: _Connection(canned, loop), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    asyncio.run(_serve(arguments.parse_args().port))
