"""Telling workers that something is owed to Mistral."""

from __future__ import annotations

from collections.abc import Callable

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database.tables import ModelRow
from labelmill.core.queue.sender import MessageSender


def send_wish(sender: MessageSender, row: ModelRow, warn: Callable[[str], None] = lambda _: None) -> None:
    """Send the message for a model's `remote_wish`, if it has one. To be called once the wish is committed."""
    if row.remote_wish is None:
        return
    try:
        sender.send(TRAIN, [JobMessage(job_id=model_work_id(row.no))])
    except BrokerUnavailable as error:
        warn(f"{error.message}: what is to be done at Mistral is done when Redis is back")
