"""A TCP proxy between the workers and a server: it can cut connections, refuse new ones, or let bytes go nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from enum import Enum
from typing import Any


class ProxyMode(Enum):
    """What happens to connections."""

    OPEN = "they go through"
    CUT = "those there are reset, new ones are refused"
    HUNG = "bytes are taken and go nowhere, new connections are taken and never answered"


class LoopThread:
    """An event loop in a thread of its own, for everything in the runner that serves."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="serving", daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine there and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        """Stop the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self.loop.close()


class Proxy:
    """Listens on a port of its own and passes on to `target_port`."""

    def __init__(self, serving: LoopThread, target_port: int) -> None:
        self._serving = serving
        self._target = target_port
        self._way = ProxyMode.OPEN
        self._flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        serving.run(self._listen())

    def set(self, way: ProxyMode) -> None:
        """From now on."""
        self._serving.run(self._set(way))

    def reset_connections(self) -> None:
        """Reset every connection once; new ones go through."""
        self._serving.run(self._reset())

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._serving.run(self._set(ProxyMode.CUT))

    async def _set(self, way: ProxyMode) -> None:
        self._way = way
        if way is ProxyMode.HUNG:
            self._flows.clear()
        else:
            self._flows.set()
        if way is ProxyMode.CUT:
            if self._server is not None:
                self._server.close()
                self._server = None
            await self._reset()
        elif self._server is None:
            await self._listen()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _listen(self) -> None:
        if self._way is not ProxyMode.HUNG:
            self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(far_writer)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.transport.abort()
                self._writers.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
