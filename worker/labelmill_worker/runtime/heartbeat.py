"""A worker's heartbeat in SQL, from a thread of its own: other workers leave to it what they cannot do (`ability`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import structlog

from labelmill.contracts.errors import LabelmillError
from labelmill.core.database import ALIVE_CONNECTIONS, connect_to_existing
from labelmill.core.settings import Settings
from labelmill_worker.process.ability import WORKER_ID
from labelmill_worker.store.workers import ALIVE_EVERY_S, note_alive, note_gone

log = structlog.get_logger()


class WorkerHeartbeat:
    """Written every `every_s` from `start` to `stop`. `queues` is called each time: remote control may change them."""

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
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, whatever is out of reach."""
        self._thread.start()

    def stop_soon(self) -> None:
        """From now on this worker takes no work. Returns at once."""
        self._stopping.set()

    def stop(self, timeout_s: float) -> None:
        """Stop, and wait for it for at most `timeout_s`: the database may be away."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._beat()
        while not self._stopping.wait(self._every_s):
            self._beat()
        self._beat()

    def _beat(self) -> None:
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
            log.debug("no heartbeat", reason=error.message)  # tasks report that the database is away
        except Exception:
            log.exception("no heartbeat")  # the next one may succeed
