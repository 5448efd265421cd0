"""Sending the message of a remote action."""

from __future__ import annotations

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.field_names import Notice
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database.tables import ModelRow
from labelmill.core.queue.sender import MessageSender


def send_remote_action(sender: MessageSender, row: ModelRow) -> tuple[Notice, ...]:
    """Send the message of a model's pending remote action (`remote_wish`), if there is one. To be called after the
    action is committed. Returns warnings."""
    if row.remote_wish is None:
        return ()
    try:
        sender.send(TRAIN, [JobMessage(job_id=model_work_id(row.no))])
    except BrokerUnavailable as error:
        return (Notice(f"{error.message}: the change at Mistral is made when Redis is back"),)
    return ()
