"""Has a worker say in SQL that it lives, from its start until it has ended."""

from __future__ import annotations

from typing import Any

from celery import bootsteps, signals

from labelmill.core.settings import load_settings
from labelmill_worker.runtime.alive import SignsOfLife

_STOP_S = 2.0


class AliveStep(bootsteps.StartStopStep):
    """A step of the worker itself, after its pool: no fork happens while the thread begins."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._signs = SignsOfLife(load_settings(), parent.hostname, lambda: parent.app.amqp.queues.consume_from)

    def start(self, parent: Any) -> None:
        del parent
        # told to end, a worker first waits for its tasks, and takes no other
        signals.worker_shutting_down.connect(self._stop_soon)
        self._signs.start()

    def stop(self, parent: Any) -> None:
        del parent
        self._signs.stop(_STOP_S)

    def terminate(self, parent: Any) -> None:
        self.stop(parent)

    def _stop_soon(self, **_: Any) -> None:
        self._signs.stop_soon()
