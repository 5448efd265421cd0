"""Loads what a worker's queues need before it takes work, and keeps the file that says whether it can take any."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import load_settings
from labelmill_worker.runtime.readiness import ReadyFile, load_modules


class ReadinessStep(bootsteps.StartStopStep):
    """A step of the worker, before the one that begins to take messages."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._file: ReadyFile | None = None

    def start(self, parent: Any) -> None:
        load_modules(parent.app.amqp.queues.consume_from)
        settings = load_settings()
        if settings.ready_file:
            self._file = ReadyFile(settings.ready_file, settings, MessageSender(parent.app))
            self._file.start()

    def stop(self, parent: Any) -> None:
        del parent
        if self._file:
            self._file.stop()
