"""The stand-in in memory, behind HTTP: for tests that ask it as Mistral is asked, from this process or another one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Self

import orjson
from aiohttp import web
from memory_mistral import MemoryMistral
from mistral_answers import (
    KEY,
    LABELS,
    Reply,
    completed,
    embedded,
    first_times,
    label_of,
    ok,
    refuse_texts_with,
    result_of,
    vector_of,
)

from labelmill_worker.ports.inference import Call, Endpoint

__all__ = [
    "KEY",
    "LABELS",
    "Reply",
    "StrictMistral",
    "completed",
    "embedded",
    "first_times",
    "label_of",
    "ok",
    "refuse_texts_with",
    "result_of",
    "vector_of",
]


ControlPlaneReply = Callable[[web.Request], Awaitable[web.Response | None]]


async def _as_usual(request: web.Request) -> None:
    del request


async def _cancel_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class StrictMistral(MemoryMistral):
    """Serves in a thread of its own, and only requests with the key."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.control_plane_reply: ControlPlaneReply = (
            _as_usual  #: Its reply to a control-plane request; None: as usual.
        )
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=1 << 28)
        for endpoint in Endpoint:
            app.router.add_post(endpoint, self._post)
        app.router.add_get("/{path:.*}", self._get)
        runner = web.AppRunner(app, shutdown_timeout=1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(_cancel_the_others())  # answers that nobody waits for
        self._loop.close()

    async def _post(self, request: web.Request) -> web.Response:
        call = Call(Endpoint(request.path), orjson.loads(await request.read()))
        has_key = request.headers.get("Authorization") == f"Bearer {KEY}"
        return await self.answer(call, has_key=has_key)

    async def _get(self, request: web.Request) -> web.Response:
        """As much of the control plane as `labelmill doctor` asks for: there is no fine-tuning."""
        if (said := await self.control_plane_reply(request)) is not None:
            return said
        if request.path != "/v1/models":
            return web.Response(status=404, body=b'{"message":"no such route"}')
        card = {"object": "model", "type": "base", "capabilities": {"completion_chat": True}}
        cards = [card | {"id": model_id} for model_id in self.models]
        return web.json_response({"object": "list", "data": cards})
