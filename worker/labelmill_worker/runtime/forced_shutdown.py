"""A worker that was told to end at once (SIGQUIT, or Ctrl-C twice), with tasks in threads, which nobody can kill.

Celery asks the pool to kill what runs. A pool of threads raises NotImplementedError: the worker would end with a
traceback, and only once its tasks had gone on as if nothing had been said. Here requests are given up instead, and
what they were for is handed back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.concurrency.base import BasePool

from labelmill_worker.process import draining
from labelmill_worker.runtime.bootstrap import give_up_requests


class QuitThreads(bootsteps.StartStopStep):
    """A step of the worker's consumer: what it does in place of killing tasks, where its pool cannot."""

    requires = ()

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        kill_tasks: Callable[[], None] = parent.cancel_active_requests

        def quit_now() -> None:
            if _can_kill(parent.pool):
                kill_tasks()
            else:
                draining.hurry(give_up_requests)

        parent.cancel_active_requests = quit_now


def _can_kill(pool: Any) -> bool:
    """Known once the pool has started: prefork sets the method then."""
    return getattr(pool.terminate_job, "__func__", None) is not BasePool.terminate_job
