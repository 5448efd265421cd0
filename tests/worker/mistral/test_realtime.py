"""The realtime adapter, against servers that behave badly below HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from labelmill.contracts.errors import MalformedAnswer, RemoteUnavailable
from labelmill_worker.mistral import realtime
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.ports.inference import Call, Endpoint

Listener = Callable[[asyncio.StreamWriter], Awaitable[None]]

CALL = Call(Endpoint.CLASSIFICATIONS, {"model": "model", "input": ["text"]})
_BODY = b'{"results": [{"topic": {"scores": {"sport": 1.0}}}]}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n"


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
    await reader.readexactly(length)


def _ask(listener: Listener, timeout_s: float = 10) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _read_request(reader)
            await listener(writer)
        finally:
            writer.transport.abort()

    async def talk() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        client = RealtimeInference(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "any", timeout_s=timeout_s)
        try:
            await client.send(CALL)
        finally:
            await client.close()
            server.close()

    asyncio.run(asyncio.wait_for(talk(), 20))


def test_who_cannot_be_reached_is_named_with_the_innermost_cause() -> None:
    async def talk() -> None:
        client = RealtimeInference("http://127.0.0.1:1", "any", timeout_s=5)
        with pytest.raises(RemoteUnavailable, match=r"Mistral cannot be reached: Connection refused"):
            await client.send(CALL)
        await client.close()

    asyncio.run(talk())


def test_an_answer_that_trickles_in_is_given_up_at_the_deadline() -> None:
    async def listener(writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        with contextlib.suppress(ConnectionError):
            while True:  # a deadline for each read would never pass
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

    with pytest.raises(RemoteUnavailable, match=r"did not answer within 0\.5 s"):
        _ask(listener, timeout_s=0.5)


def test_an_answer_that_is_cut_short_is_asked_for_again() -> None:
    async def listener(writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD + _BODY[:20])
        await writer.drain()

    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        _ask(listener)


def test_an_answer_without_an_end_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "MAX_ANSWER_BYTES", 100_000)
    sent = 0

    async def listener(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(_HEAD.replace(b"10000", b"9000000000"))
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" " * 10_000)
                sent += 10_000
                await writer.drain()

    with pytest.raises(MalformedAnswer, match="longer than 100,000 bytes"):
        _ask(listener)
    assert sent < 20_000_000  # what buffers on the way take


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_a_body_is_a_fault_of_the_server(status: int) -> None:
    async def listener(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    with pytest.raises((MalformedAnswer, RemoteUnavailable), match=r"not valid JSON|has trouble"):
        _ask(listener)
