"""Work that this worker cannot do goes back, with a message for another worker (see `ability`)."""

from __future__ import annotations

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import JobMessage
from labelmill.core.jobs.tables import JobTable
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.process import draining
from labelmill_worker.process.ability import LEAVE_PAUSE_S
from labelmill_worker.store.jobs import release_job

log = structlog.get_logger()


def put_back(sender: MessageSender, task: str, message: JobMessage, *, priority: str = "normal") -> None:
    """Put a message on its queue, and take none for a moment: another worker shall have it."""
    try:
        sender.send(task, [message], priority=priority)
    except BrokerUnavailable:
        log.warning("left to other workers without a message: Redis cannot be reached")
    draining.pause(LEAVE_PAUSE_S)


def leave_job(engine: Engine, sender: MessageSender, table: JobTable, job_id: str, token: str, task: str) -> None:
    """Give a job back that another worker may do."""
    if release_job(engine, table, job_id, token, look_again_in_s=0.0):
        put_back(sender, task, JobMessage(job_id=job_id))
