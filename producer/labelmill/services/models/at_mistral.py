"""Telling workers that something is to be done at Mistral."""

from __future__ import annotations

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.field_names import Notice
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database.tables import ModelRow
from labelmill.core.queue.sender import MessageSender


def send_remote_action(sender: MessageSender, row: ModelRow) -> tuple[Notice, ...]:
    """Send the message for a model's `remote_wish`, if it has one. To be called once the wish is committed. Returns
    what should be known."""
    if row.remote_wish is None:
        return ()
    try:
        sender.send(TRAIN, [JobMessage(job_id=model_work_id(row.no))])
    except BrokerUnavailable as error:
        return (Notice(f"{error.message}: what is to be done at Mistral is done when Redis is back"),)
    return ()
