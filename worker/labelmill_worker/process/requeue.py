"""Work that this worker cannot do is released, with a message for another worker (see `ability`)."""

from __future__ import annotations

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import JobMessage
from labelmill.core.jobs.tables import JobTable
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.process import draining
from labelmill_worker.process.ability import REQUEUE_PAUSE_S
from labelmill_worker.store.jobs import release_job

log = structlog.get_logger()


def requeue(sender: MessageSender, task: str, message: JobMessage, *, priority: str = "normal") -> None:
    """Send a message to its queue again, and take none for `REQUEUE_PAUSE_S`: another worker should receive it."""
    try:
        sender.send(task, [message], priority=priority)
    except BrokerUnavailable:
        log.warning("left to other workers without a message: Redis cannot be reached")
    draining.pause(REQUEUE_PAUSE_S)


def requeue_job(engine: Engine, sender: MessageSender, table: JobTable, job_id: str, token: str, task: str) -> None:
    """Release a job that another worker may do."""
    if release_job(engine, table, job_id, token, poll_again_in_s=0.0):
        requeue(sender, task, JobMessage(job_id=job_id))
