"""Keeping a lease while long work goes on in another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Generic, Self

from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.jobs.leases import RENEWALS_PER_LEASE, LeaseLost
from labelmill.core.jobs.tables import J
from labelmill_worker.store.jobs import renew_job


class LeaseRenewal:
    """Calls `renew` every third of a lease, from a thread of its own, until the block ends.

    `lost` is set when `renew` returned False, or the lease could not be renewed until it ran out.
    """

    def __init__(self, what: str, renew: Callable[[], bool], lease_s: float) -> None:
        self.lost = threading.Event()
        self._what = what
        self._renew_once = renew
        self._lease_s = lease_s
        self._good_until = time.monotonic() + lease_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {what}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost once the lease is gone: to be called now and then by the work."""
        # by the clock as well: after a freeze this thread may be awake before the one that renews
        if self.lost.is_set() or time.monotonic() > self._good_until:
            raise LeaseLost(f"the lease on {self._what} was lost")

    def _renew(self) -> None:
        # by this process' own clock, and from when it asked: the lease is over here before it is over there
        while not self._done.wait(self._lease_s / RENEWALS_PER_LEASE):
            asked_at = time.monotonic()
            try:
                is_held = self._renew_once()
            except DatabaseUnavailable:
                is_held = asked_at < self._good_until
            else:
                self._good_until = asked_at + self._lease_s
            if not is_held:
                self.lost.set()
                return


class LeaseKeeper(LeaseRenewal, Generic[J]):
    """Keeps a job's lease."""

    def __init__(self, engine: Engine, table: type[J], job_id: str, token: str, lease_s: float) -> None:
        super().__init__(job_id, partial(renew_job, engine, table, job_id, token, lease_s), lease_s)
