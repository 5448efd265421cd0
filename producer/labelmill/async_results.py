"""Results for asyncio: iterators and calls that may follow a job for hours, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from labelmill.contracts.errors import Permanent
from labelmill.services.jobs.pausing import pause_by

R = TypeVar("R")


class OwnThread:
    """A thread for calls that pause until a job goes on. The loop's pool has a few threads for all of the program: some
    calls that wait there would hold up everything else. Use it as an asynchronous context manager."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="labelmill-results")
        self._is_stopped = threading.Event()
        self._context = contextvars.copy_context()
        self._context.run(pause_by.set, self._pause)

    def _pause(self, seconds: float) -> None:
        if self._is_stopped.wait(seconds):
            raise Permanent("the caller stopped waiting")

    async def run(self, call: Callable[[], R]) -> R:
        """The result of the call, made in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._context.run, call)

    def stop(self) -> None:
        """End the call that pauses, or pauses next: nobody waits for it any more."""
        self._is_stopped.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()
        self._pool.shutdown(wait=False)


async def pieces_of(make: Callable[[], Iterator[R]]) -> AsyncGenerator[R, None]:
    """What an iterator gives, each piece made in a thread that the iterator has for itself."""
    async with OwnThread() as thread:
        iterator = await thread.run(make)
        try:
            while (piece := await thread.run(lambda: next(iterator, None))) is not None:
                yield piece
        finally:
            thread.stop()
            if isinstance(iterator, Generator):
                await thread.run(iterator.close)
