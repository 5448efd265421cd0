"""Waiting for a job through an outage of the database: lost reads are tried again, for a quarter of an hour."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.services.jobs.pausing import pause

PATIENCE_S = 15 * 60.0  #: From the first lost read on.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0

T = TypeVar("T")


class LostReads:
    """Retries the reads of one wait while the database is unavailable.

    `say` is called when an outage begins and when it ends. Used from one thread.
    """

    def __init__(
        self,
        job_id: str,
        say: Callable[[str], None],
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        self._job_id, self._say, self._patience_s = job_id, say, patience_s
        self._clock, self._sleep = clock, sleep
        self._since: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    def read(self, look: Callable[[], T], *, until: float | None = None) -> T:
        """What `look` returns, retried while the database is unavailable. `until`: a time of `clock`; an outage that
        lasts longer raises the read's own error. Raises DatabaseUnavailable."""
        while True:
            try:
                result = look()
            except DatabaseUnavailable as error:
                if until is not None and self._clock() >= until:
                    raise
                self.wait_after(error)
            else:
                self.succeeded()
                return result

    def wait_after(self, error: DatabaseUnavailable) -> None:
        """Pause before the read is retried. Raises DatabaseUnavailable, with the command that follows the job, when the
        outage has lasted too long."""
        now = self._clock()
        if self._since is None:
            self._since, self._pause_s = now, _FIRST_PAUSE_S
            patience = _minutes(self._patience_s)
            self._say(f"{error.message}; trying again for {patience}, {self._job_id} goes on meanwhile")
        elif now >= self._since + self._patience_s:
            raise DatabaseUnavailable(
                f"{error.message}; given up after {_minutes(self._patience_s)}. The job goes on: "
                f"labelmill watch {self._job_id}"
            ) from error
        self._sleep(self._pause_s)
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 1.5)

    def succeeded(self) -> None:
        """Record that a read succeeded."""
        if self._since is not None:
            self._since = None
            self._say("the database answers again")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:g} s"
