"""`labelmill.train`: one poll of one training, or the pending remote action of a model."""

from __future__ import annotations

from labelmill.contracts.ids import model_of_work
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.train.poller import TrainingPoller
from labelmill_worker.train.remote_actions import carry_out_action


def run(resources: ProcessResources, message: JobMessage) -> None:
    """Poll the training and record its state; the next poll is a message of its own."""
    model_no = model_of_work(message.job_id)
    if model_no is not None:
        carry_out_action(
            resources.engine,
            lambda: resources.control_plane,
            model_no,
            lambda error: resources.ability.leaves_to_others(error, message.job_id, QUEUE_OF[TRAIN]),
        )
        return
    poller = TrainingPoller(
        resources.engine,
        resources.sender,
        lambda: resources.control_plane,
        resources.settings,
        resources.storage,
        ability=resources.ability,
    )
    poller.poll(message.job_id)
