"""Checks every quarter of a second whether a batch waits that no worker serves, in a thread of its own: recording does
not wait for the query."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill_worker.store.fairness import unserved_batch

CHECK_EVERY_S = 0.25


class UnservedWatch:
    """Belongs to one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="unserved")
        self._check: Future[str | None] | None = None
        self._check_at = 0.0

    @property
    def is_checking(self) -> bool:
        """Whether an answer is about to come."""
        return self._check is not None

    def found_batch(self, *, may_check: bool) -> bool:
        """Whether the check that has just ended found a batch. Begins the next one when it is due, if it may. Never
        waits."""
        if self._check is None:
            now = time.monotonic()
            if may_check and now >= self._check_at:
                self._check_at = now + CHECK_EVERY_S
                self._check = self._threads.submit(unserved_batch, self._engine)
            return False
        if not self._check.done():
            return False
        check, self._check = self._check, None
        try:
            return check.result() is not None
        except DatabaseUnavailable:
            return False

    def close(self) -> None:
        """Wait for a check that is under way."""
        self._threads.shutdown()
