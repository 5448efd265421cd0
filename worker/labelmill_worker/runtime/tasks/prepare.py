"""`labelmill.prepare`: one dataset."""

from __future__ import annotations

from labelmill.contracts.messages import JobMessage
from labelmill_worker.prepare.preparation import prepare_job
from labelmill_worker.runtime.bootstrap import Services


def run(services: Services, message: JobMessage) -> None:
    """Prepare the dataset."""
    prepare_job(services, message.job_id)
