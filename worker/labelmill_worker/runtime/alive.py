"""A worker says in SQL that it lives, from a thread of its own: others leave to it what they cannot do (`ability`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from celery import bootsteps, signals

from labelmill.contracts.errors import LabelmillError
from labelmill.core.database import ALIVE_CONNECTIONS, connect_to_existing
from labelmill.core.settings import Settings, load_settings
from labelmill_worker.process.ability import WORKER_ID
from labelmill_worker.store.workers import ALIVE_EVERY_S, note_alive, note_gone

log = structlog.get_logger()
_STOP_S = 2.0


class SignsOfLife:
    """Given every `every_s` from `start` to `stop`. `queues` is asked each time: remote control may change them."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        queues: Callable[[], Iterable[str]],
        *,
        worker_id: str = WORKER_ID,
        every_s: float = ALIVE_EVERY_S,
    ) -> None:
        self._settings, self._name, self._queues = settings, name, queues
        self._worker_id, self._every_s = worker_id, every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs-of-life", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, whatever is out of reach."""
        self._thread.start()

    def stop_soon(self) -> None:
        """From now on this worker takes nothing. Returns at once."""
        self._stopping.set()

    def stop(self, timeout_s: float) -> None:
        """Stop, and wait for it for at most `timeout_s`: the database may be away."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._say()
        while not self._stopping.wait(self._every_s):
            self._say()
        self._say()

    def _say(self) -> None:
        try:
            engine = connect_to_existing(self._settings, max_connections=ALIVE_CONNECTIONS)
            try:
                if self._stopping.is_set():
                    note_gone(engine, self._worker_id)
                else:
                    note_alive(engine, self._worker_id, self._name, list(self._queues()))
            finally:
                engine.dispose()  # no connection is kept that a child of a prefork pool could inherit
        except LabelmillError as error:
            log.debug("no sign of life", reason=error.message)  # whoever works says that the database is away
        except Exception:
            log.exception("no sign of life")  # the next one may be


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
