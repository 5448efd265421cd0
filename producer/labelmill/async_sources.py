"""Sources that come asynchronously, for calls that read them in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from labelmill.contracts.errors import Permanent
from labelmill.contracts.sources import PassedOn, name_of_source

R = TypeVar("R")

_ROWS_AT_ONCE = 1_000  #: That a thread gets in one piece.


class AsynchronousRows(PassedOn):
    """Rows of an asynchronous iterable for a thread, which waits while the loop that they come from gets the next."""

    def __init__(self, source: AsyncIterable[object], loop: asyncio.AbstractEventLoop) -> None:
        self.source_name = name_of_source(source)
        self._source, self._loop = aiter(source), loop
        self._piece: deque[object] = deque()
        self._next: Future[list[object]] | None = None
        self._is_exhausted = self._is_closed = False

    def __next__(self) -> object:
        while not self._piece:
            if self._is_closed:
                raise Permanent("the caller stopped waiting before all rows were read")
            if self._is_exhausted:
                raise StopIteration
            self._next = asyncio.run_coroutine_threadsafe(self._some(), self._loop)
            self._piece.extend(self._next.result())
        return self._piece.popleft()

    async def _some(self) -> list[object]:
        piece: list[object] = []
        while len(piece) < _ROWS_AT_ONCE:
            try:
                piece.append(await anext(self._source))
            except StopAsyncIteration:
                self._is_exhausted = True
                break
        return piece

    async def close(self) -> None:
        """Read no more rows."""
        self._is_closed = True
        if self._next is not None:
            self._next.cancel()
        if isinstance(self._source, AsyncGenerator):
            with contextlib.suppress(RuntimeError):  # it still ends because of the cancellation
                await self._source.aclose()


async def in_own_thread(call: Callable[[], R], sources: Sequence[AsynchronousRows]) -> R:
    """Make a call that reads these sources. In a thread of its own: it waits for them, and those of the loop's pool may
    all be needed to make their rows. When the caller is cancelled, the call ends at its next row."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="labelmill-source")
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, call)
    finally:
        for source in sources:
            await source.close()
        pool.shutdown(wait=False)
