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

MIN_BYTES_PER_S = 20_000  #: What is slower for long is cut.
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
    """A response hook of httpx2: a body is read no further when all the waiting for its parts took too long. It has
    the rest of the call's time, and more with every byte: a large body arrives, one that drips in is cut."""
    if isinstance(response.stream, httpx2.SyncByteStream):
        left_s = _until.get(time.monotonic() + 3600) - time.monotonic()
        response.stream = _TimedBody(response.stream, left_s)


class _TimedBody(httpx2.SyncByteStream):
    def __init__(self, body: httpx2.SyncByteStream, left_s: float) -> None:
        self._body, self._left_s = body, left_s

    def __iter__(self) -> Iterator[bytes]:
        asked_at = time.monotonic()
        for part in self._body:
            self._left_s += len(part) / MIN_BYTES_PER_S - (time.monotonic() - asked_at)
            yield part
            if self._left_s < 0:
                raise httpx2.ReadTimeout("the answer did not arrive in time")
            asked_at = time.monotonic()  # what the reader does meanwhile is not waiting

    def close(self) -> None:
        self._body.close()
