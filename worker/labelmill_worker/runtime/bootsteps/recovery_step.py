"""Ties recovery to Celery's worker: it starts after the pool, so that prefork children have none, and is not part of
the consumer, which Celery makes anew whenever Redis was away."""

from __future__ import annotations

from typing import Any

from celery import bootsteps, signals

from labelmill.core.settings import load_settings
from labelmill_worker.runtime.recovery.timer import RecoveryThread

_STOP_S = 2.0


class RecoveryStep(bootsteps.StartStopStep):
    """A step of the worker itself."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._recovery = RecoveryThread(load_settings())

    def start(self, parent: Any) -> None:
        del parent
        # told to end, a worker first waits for its tasks: recovery ends at once
        signals.worker_shutting_down.connect(self._stop_soon)
        self._recovery.start()

    def stop(self, parent: Any) -> None:
        del parent
        self._recovery.stop(_STOP_S)

    def terminate(self, parent: Any) -> None:
        self.stop(parent)

    def _stop_soon(self, **_: Any) -> None:
        self._recovery.stop_soon()
