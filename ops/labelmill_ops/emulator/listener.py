"""The listening socket. Closed for a while, it refuses connections as a machine that restarts does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from aiohttp import web

_REOPEN_EVERY_S = 0.1


class Listener:
    """Opens once; `close_for` closes it and opens it again at the same port."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        """Nothing listens yet."""
        self._runner, self._host, self._port = runner, host, port
        self._site: web.TCPSite | None = None
        self._reopening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._site = web.TCPSite(self._runner, self._host, self._port, backlog=1024)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def close_for(self, seconds: float) -> None:
        """Cut every connection and accept none for so long."""
        if self._site is None or (self._reopening and not self._reopening.done()):
            return
        await self._site.stop()
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                reset(connection.transport)
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while True:  # another process may have taken the port meanwhile
            with contextlib.suppress(OSError):
                await self.open()
                return
            await asyncio.sleep(_REOPEN_EVERY_S)

    def close(self) -> None:
        """Cancel a reopening that is pending."""
        if self._reopening is not None:
            self._reopening.cancel()


LISTENER = web.AppKey("listener", Listener)


def reset(transport: asyncio.BaseTransport) -> None:
    """End a connection with a TCP reset: what is still in the socket's buffer is thrown away."""
    connection_socket = transport.get_extra_info("socket")
    if connection_socket is not None:
        with contextlib.suppress(OSError):
            connection_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
