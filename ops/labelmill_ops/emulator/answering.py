"""What answers a request that carries texts, whether it comes by itself or in a batch job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from labelmill_ops.emulator.model_limits import MODEL_WINDOWS
from labelmill_ops.emulator.replies import json_body
from labelmill_ops.emulator.stats import STATS


@dataclass(frozen=True)
class Answered:
    """A reply, as JSON, and what it is billed for."""

    payload: bytes
    texts: Sequence[str]
    tokens: int


#: Takes a request's body. Raises RefusedError; what is refused is not billed.
Answerer = Callable[[dict[str, Any]], Awaitable[Answered]]

ANSWERERS: web.AppKey[Mapping[str, Answerer]] = web.AppKey("answerers by path", Mapping)


def realtime_routes(answerers: Mapping[str, Answerer]) -> list[web.RouteDef]:
    """Return a route for each path: the client waits for the answer."""
    return [web.post(path, _realtime(answerer)) for path, answerer in answerers.items()]


def _realtime(answerer: Answerer) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        body, windows = await json_body(request), request.app[MODEL_WINDOWS]
        windows.admit(body.get("model"))
        answered = await answerer(body)
        request.app[STATS].bill_realtime(request, answered.texts, answered.tokens)
        headers = windows.answered(body.get("model"), answered.tokens)
        return web.Response(body=answered.payload, content_type="application/json", headers=headers)

    return handle
