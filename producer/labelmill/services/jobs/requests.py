"""The requests that name one job by its id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobRequest:
    """One job: to be shown, approved, cancelled."""

    job_id: str


@dataclass(frozen=True)
class RetryRequest(JobRequest):
    """A job to go on with. `max_cost`: of the whole job, with what was spent before; None: it stays as it is."""

    max_cost: float | None = None
