"""Graceful shutdown of a worker (SIGTERM, SIGINT): what it still does, and its deadlines.

At once: no request starts, preparations stop. Requests under way are answered and recorded, the rest is released with a
message, so that other workers take it over within a second. Celery ends the process as soon as its tasks have ended.

After `GRACE_S` requests that are still under way are aborted. After `LIMIT_S` the process exits as if killed: recovery
returns its work when the leases have expired.

A forced shutdown (SIGQUIT, or SIGINT twice) does not wait for requests.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from labelmill.contracts.errors import Retryable

log = structlog.get_logger()

GRACE_S = 15.0
LIMIT_S = 25.0  #: Within the 30 s that `labelmill up` and Kubernetes wait before they kill.

_shutting_down = threading.Event()


class ShuttingDown(Retryable):
    """This worker shuts down: the work goes on elsewhere."""

    code = "worker_ends"


def is_draining() -> bool:
    """Whether this process shuts down."""
    return _shutting_down.is_set()


def pause(seconds: float) -> None:
    """Wait, at most until this process shuts down."""
    _shutting_down.wait(seconds)


def begin(abort_requests: Callable[[], None]) -> None:
    """Begin a graceful shutdown. Returns at once; may be called again."""
    if _shutting_down.is_set():
        return
    _shutting_down.set()
    for after_s, act in ((GRACE_S, abort_requests), (LIMIT_S, _end)):
        timer = threading.Timer(after_s, act)
        timer.daemon = True  # it does not hold up a process that ends before
        timer.start()


def force_shutdown(abort_requests: Callable[[], None]) -> None:
    """Shut down without waiting for requests. Returns at once; may be called again, and after `begin`."""
    begin(abort_requests)
    abort_requests()


def _end() -> None:
    log.error("not everything could be released in time; recovery returns it when its lease has expired")
    os._exit(1)
