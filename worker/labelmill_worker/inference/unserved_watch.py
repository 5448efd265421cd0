"""Looks now and then whether a batch waits that no worker serves, in a thread of its own: what is to be recorded does
not wait for it."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill_worker.store.fairness import unserved_batch

LOOK_EVERY_S = 0.25


class UnservedWatch:
    """Asked by one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="unserved")
        self._look: Future[str | None] | None = None
        self._look_at = 0.0

    @property
    def is_looking(self) -> bool:
        """Whether an answer is about to come."""
        return self._look is not None

    def finds_one(self, *, may_look: bool) -> bool:
        """Whether the look that has just ended found a batch. Begins another one in time, if it may. Never waits."""
        if self._look is None:
            now = time.monotonic()
            if may_look and now >= self._look_at:
                self._look_at = now + LOOK_EVERY_S
                self._look = self._threads.submit(unserved_batch, self._engine)
            return False
        if not self._look.done():
            return False
        look, self._look = self._look, None
        try:
            return look.result() is not None
        except DatabaseUnavailable:
            return False

    def close(self) -> None:
        """Wait for a look that is under way."""
        self._threads.shutdown()
