"""`labelmill.prepare`: one dataset."""

from __future__ import annotations

from labelmill.contracts.messages import JobMessage
from labelmill_worker.bootstrap import Services
from labelmill_worker.prepare.work import prepare_job


def run(services: Services, message: JobMessage) -> None:
    """Prepare the dataset."""
    prepare_job(services, message.job_id)
