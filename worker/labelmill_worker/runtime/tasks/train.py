"""labelmill.train: one look at one training, or what is owed to Mistral for a model that a person put away."""

from __future__ import annotations

from labelmill.contracts.ids import model_of_work
from labelmill.contracts.messages import QUEUE_OF, TRAIN, JobMessage
from labelmill_worker.runtime.bootstrap import Services
from labelmill_worker.train.poller import TrainingWatch
from labelmill_worker.train.remote_actions import carry_out_wish


def run(services: Services, message: JobMessage) -> None:
    """Look at the training and record what is there; the next look is a message of its own."""
    model_no = model_of_work(message.job_id)
    if model_no is not None:
        carry_out_wish(
            services.engine,
            lambda: services.control_plane,
            model_no,
            lambda error: services.ability.leaves_to_others(error, message.job_id, QUEUE_OF[TRAIN]),
        )
        return
    watch = TrainingWatch(
        services.engine, services.sender, lambda: services.control_plane, services.settings, ability=services.ability
    )
    watch.look(message.job_id)
