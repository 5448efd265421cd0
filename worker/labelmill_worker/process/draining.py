"""A worker that was told to end (SIGTERM, SIGINT): what it does until it has ended, and by when it has.

At once: no request starts, preparations stop. What is under way is answered and recorded, the rest is handed back with
a message, and other workers take it over within moments. Celery ends the process as soon as its tasks have ended.

After `GRACE_S` requests that are still under way are given up. After `LIMIT_S` the process ends whatever it does, as by
a kill: what it held is taken up when its lease has run out.

Told to end at once (SIGQUIT, or SIGINT twice), it does not wait for requests.
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

_told = threading.Event()


class WorkerEnds(Retryable):
    """The work goes on elsewhere."""

    code = "worker_ends"


def is_draining() -> bool:
    """Whether this process was told to end."""
    return _told.is_set()


def pause(seconds: float) -> None:
    """Wait, at most until this process is told to end."""
    _told.wait(seconds)


def begin(give_up_requests: Callable[[], None]) -> None:
    """This process was told to end. Returns at once; may be called again."""
    if _told.is_set():
        return
    _told.set()
    for after_s, act in ((GRACE_S, give_up_requests), (LIMIT_S, _end)):
        timer = threading.Timer(after_s, act)
        timer.daemon = True  # it does not hold up a process that ends before
        timer.start()


def hurry(give_up_requests: Callable[[], None]) -> None:
    """This process was told to end at once. Returns at once; may be called again, and after `begin`."""
    begin(give_up_requests)
    give_up_requests()


def _end() -> None:
    log.error("not everything could be handed back in time; it is taken up when its lease has run out")
    os._exit(1)
