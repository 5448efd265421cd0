"""A job's lease, kept alive while a worker waits for the network."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Generic

from sqlalchemy.engine import Engine

from labelmill.contracts.errors import Retryable
from labelmill_worker.store.jobs import Job, renew_job


class LeaseLost(Exception):  # no LabelmillError: nobody is told, somebody else goes on with the job
    """The job belongs to somebody else now, or has ended: nothing more may be done for it here."""


class KeptLease(Generic[Job]):
    """Renews the lease three times in its length, from a thread, for as long as the `with` block runs."""

    def __init__(self, engine: Engine, table: type[Job], job_id: str, token: str, lease_s: float) -> None:
        self.token = token
        self._engine, self._job_id, self._lease_s = engine, job_id, lease_s
        self._table: type[Job] = table
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{job_id}", daemon=True)

    def confirm(self) -> None:
        """Renew now, before what must not be done twice. Raises LeaseLost, DatabaseUnavailable."""
        if not renew_job(self._engine, self._table, self._job_id, self.token, self._lease_s):
            raise LeaseLost(self._job_id)

    def __enter__(self) -> KeptLease[Job]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._done.wait(self._lease_s / 3):
            try:
                self.confirm()
            except LeaseLost:
                return
            except Retryable:
                continue  # the database may be back before the lease is over; `confirm` and every write will tell
