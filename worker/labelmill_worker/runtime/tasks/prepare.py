"""`labelmill.prepare`: one dataset."""

from __future__ import annotations

from labelmill.contracts.messages import JobMessage
from labelmill_worker.prepare.preparation import PrepareContext, prepare_job
from labelmill_worker.runtime.bootstrap import ProcessResources


def run(resources: ProcessResources, message: JobMessage) -> None:
    """Prepare the dataset."""
    settings = resources.settings
    context = PrepareContext(
        resources.engine, resources.sender, resources.ability, storage=resources.storage, lease_s=settings.lease_s
    )
    prepare_job(context, message.job_id)
