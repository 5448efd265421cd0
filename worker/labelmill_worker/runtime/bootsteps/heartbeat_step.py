"""Writes a worker's heartbeat to SQL, from its start until it has ended."""

from __future__ import annotations

from typing import Any

from celery import bootsteps, signals

from labelmill.core.settings import load_settings
from labelmill_worker.runtime.heartbeat import WorkerHeartbeat

_STOP_S = 2.0


class HeartbeatStep(bootsteps.StartStopStep):
    """A step of the worker itself, after its pool: no fork happens while the thread begins."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._heartbeat = WorkerHeartbeat(load_settings(), parent.hostname, lambda: parent.app.amqp.queues.consume_from)

    def start(self, parent: Any) -> None:
        del parent
        # told to end, a worker first waits for its tasks, and takes no other
        signals.worker_shutting_down.connect(self._stop_soon)
        self._heartbeat.start()

    def stop(self, parent: Any) -> None:
        del parent
        self._heartbeat.stop(_STOP_S)

    def terminate(self, parent: Any) -> None:
        self.stop(parent)

    def _stop_soon(self, **_: Any) -> None:
        self._heartbeat.stop_soon()
