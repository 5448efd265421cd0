"""labelmill.train: one look at one training, or what is owed to Mistral for a model that a person put away."""

from __future__ import annotations

from labelmill.contracts.ids import model_of_work
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.train.poller import TrainingWatch
from labelmill_worker.train.remote_actions import carry_out_wish


def run(resources: ProcessResources, message: JobMessage) -> None:
    """Look at the training and record what is there; the next look is a message of its own."""
    model_no = model_of_work(message.job_id)
    if model_no is not None:
        carry_out_wish(
            resources.engine,
            lambda: resources.control_plane,
            model_no,
            lambda error: resources.ability.leaves_to_others(error, message.job_id, QUEUE_OF[TRAIN]),
        )
        return
    watch = TrainingWatch(
        resources.engine,
        resources.sender,
        lambda: resources.control_plane,
        resources.settings,
        ability=resources.ability,
    )
    watch.look(message.job_id)
