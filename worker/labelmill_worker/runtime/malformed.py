"""What a worker does with malformed messages: it keeps them as dead letters.

They are found by the transport (`labelmill.core.queue.wire`), before Celery sees them. Here is what a worker adds.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from labelmill.core.queue.wire.frame import MalformedMessage, drop_with
from labelmill.core.settings import load_settings
from labelmill_worker.runtime.dead_letters import process_dead_letters


class KeepMalformedMessages(bootsteps.StartStopStep):
    """A step of the worker's consumer."""

    requires = ()

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        drop_with(_keep)


def _keep(refusal: MalformedMessage, queue: str) -> None:
    process_dead_letters(load_settings()).drop(
        refusal.reason, refusal.excerpt, queue_name=queue, task=refusal.task, message_id=refusal.message_id
    )


def listen_to_no_worker(worker: Any) -> None:
    """Workers neither follow each other's events (gossip) nor ask each other for their clocks when they start (mingle).

    Labelmill uses neither, and both believe whatever comes over Redis.
    """
    worker.options |= {"without_gossip": True, "without_mingle": True}
