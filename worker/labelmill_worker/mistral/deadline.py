"""A deadline for the whole of a blocking call. The SDK's own time-out is for each read: an answer that drips in is
never late by it."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import httpx2

from labelmill.contracts.errors import RemoteUnavailable

Result = TypeVar("Result")

_until: contextvars.ContextVar[float] = contextvars.ContextVar("until")


def call_within(call: Callable[[], Result], timeout_s: float) -> Result:
    """What `call` returns or raises. Raises RemoteUnavailable when that takes longer than `timeout_s` in total.

    A call that is given up goes on in its thread until its connection fails or, with `cut_late_bodies`, its next byte.
    """
    result: Future[Result] = Future()
    context = contextvars.copy_context()
    context.run(_until.set, time.monotonic() + timeout_s)

    def work() -> None:
        try:
            result.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            result.set_exception(error)

    threading.Thread(target=work, name="mistral-call", daemon=True).start()
    try:
        return result.result(timeout_s)
    except TimeoutError:
        if result.done():
            raise  # the call's own
        raise RemoteUnavailable(f"Mistral did not answer within {timeout_s:g} s") from None


def cut_late_bodies(response: httpx2.Response) -> None:
    """A response hook of httpx2: the body of a call that was given up is read no further."""
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _TimedBody(response.stream, _until.get(time.monotonic() + 3600))


class _TimedBody(httpx2.SyncByteStream):
    def __init__(self, body: httpx2.SyncByteStream, until: float) -> None:
        self._body, self._until = body, until

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            yield part
            if time.monotonic() > self._until:
                raise httpx2.ReadTimeout("the answer did not arrive in time")

    def close(self) -> None:
        self._body.close()
