"""What is asked of jobs by their ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobRequest:
    """One job: to be shown, approved, cancelled, retried."""

    job_id: str
