"""labelmill.train: one look at one training."""

from __future__ import annotations

from labelmill.contracts.messages import JobMessage
from labelmill_worker.bootstrap import Services
from labelmill_worker.train.look import TrainingWatch


def run(services: Services, message: JobMessage) -> None:
    """Look at the training and record what is there; the next look is a message of its own."""
    TrainingWatch(services.engine, services.sender, lambda: services.control_plane, services.settings).look(
        message.job_id
    )
