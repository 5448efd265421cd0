"""A worker loads what its queues need before it takes work, and says whether it can take any.

Loaded at the first task instead, the libraries would make that one wait for seconds. A supervisor reads from a file,
`LABELMILL_READY_FILE`, whether the process can take work. Its time is renewed every few seconds as long as the database
has the tables of this version and Redis answers. It is removed while they do not, and once the worker drains. A health
check that reads the file's age also notices a process that is frozen.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import redis
import structlog
from redis.exceptions import RedisError
from sqlalchemy import text

from labelmill.contracts.errors import BrokerUnavailable, LabelmillError
from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.database import reading
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_worker.process import draining
from labelmill_worker.runtime.bootstrap import process_resources

log = structlog.get_logger()

INTERVAL_S = 5.0
_SWITCH_S = 0.0001  #: A thread that comes back from the database waits so long for one that computes, not 5 ms.
_MODULES = {
    "classify": ("labelmill_worker.mistral.realtime", "labelmill_worker.inference.inference_runtime"),
    "prepare": ("datasets",),
    "train": ("labelmill_worker.mistral.control_plane", "sklearn.linear_model", "scipy.optimize"),
}  #: What the tasks of each queue import when they first need it.


def load_modules(queues: Iterable[str]) -> None:
    """Import what the tasks of these queues need."""
    started_at = time.monotonic()
    for module in (module for queue in queues for module in _MODULES.get(queue, ())):
        importlib.import_module(module)
    _prepare_interpreter()
    log.info("loaded", queues=sorted(queues), seconds=round(time.monotonic() - started_at, 1))


def _prepare_interpreter() -> None:
    """For a process, or its children, whose event loop and recorder wait for each other many times a second. Before the
    first task: it takes a fifth of a second."""
    gc.collect()
    gc.freeze()  # looking through all that was imported would stop every request for a tenth of a second
    sys.setswitchinterval(_SWITCH_S)


def check_resources(settings: Settings, sender: MessageSender) -> None:
    """Raise a LabelmillError that says why this process cannot take work."""
    with reading(process_resources(settings, sender).engine) as connection:
        connection.execute(text("SELECT 1"))
    try:
        with redis.Redis.from_url(
            **redis_arguments(settings.broker_url), socket_timeout=3, socket_connect_timeout=3
        ) as client:
            client.ping()
    except (RedisError, OSError) as error:
        raise BrokerUnavailable("Redis cannot be reached") from error


class ReadyFile:
    """Renews the file from a thread of its own while `check` passes; removes it otherwise."""

    def __init__(self, path: Path, settings: Settings, sender: MessageSender, interval_s: float = INTERVAL_S) -> None:
        self._path = path
        self._settings = settings
        self._sender = sender
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)
        self._reason: str | None = None

    def start(self) -> None:
        self._path.unlink(missing_ok=True)  # left by a process that was killed
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not (self._stopped.is_set() or draining.is_draining()):
            self._check_once()
            self._stopped.wait(self._interval_s)
        self._path.unlink(missing_ok=True)

    def _check_once(self) -> None:
        reason = None
        try:
            check_resources(self._settings, self._sender)
            self._path.touch()
        except (LabelmillError, OSError) as error:
            reason = str(error)
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        if reason != self._reason:
            if reason:
                log.warning("not ready", reason=reason)
            else:
                log.info("ready again")
            self._reason = reason
