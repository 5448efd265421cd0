"""The request that names one job by its id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobRequest:
    """One job: to be shown, approved, cancelled, retried."""

    job_id: str
