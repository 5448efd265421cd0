"""`labelmill.evaluate`: one poll of one evaluation."""

from __future__ import annotations

from labelmill.contracts.messages import JobMessage
from labelmill.core.money.prices import PriceList
from labelmill_worker.evaluate.evaluation import EvaluateContext
from labelmill_worker.evaluate.poller import poll_evaluation
from labelmill_worker.runtime.bootstrap import ProcessResources


def run(resources: ProcessResources, message: JobMessage) -> None:
    """Do the evaluation's next step."""
    settings = resources.settings
    context = EvaluateContext(
        resources.engine,
        resources.sender,
        resources.ability,
        storage=resources.storage,
        lease_s=settings.lease_s,
        prices=PriceList.of(settings),
    )
    poll_evaluation(context, message.job_id)
