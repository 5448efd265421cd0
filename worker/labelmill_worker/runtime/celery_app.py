"""Celery's own classes as workers need them, each put in place by a hook of Celery's: an attribute of the application
or a setting. What each counts on, and what shows when a new Celery differs (`test_celery_app.py`):

- `WorkerEvents`: the worker makes its dispatcher of `app.events.Dispatcher`, and one without a `buffer_group` gathers
  nothing. Else Flower misses the ends of tasks.
- `WorkerConsumer`: the worker makes its consumer of the class that `worker_consumer` names, hands it the options that
  steps are made with as `worker_options`, and calls `cancel_active_requests` to end at once. Else workers believe each
  other, or one that was told to end at once waits for its tasks and ends with a traceback.
"""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.concurrency.base import BasePool
from celery.events.dispatcher import EventDispatcher
from celery.worker.consumer import Consumer

from labelmill.core.queue.application import QueueApp
from labelmill.core.settings import Settings
from labelmill_worker.process import draining
from labelmill_worker.runtime.bootstrap import abort_requests


class PromptDispatcher(EventDispatcher):
    """Sends each task event at once.

    Celery gathers task events in a list and empties it after sending; what a pool's thread adds in between is dropped
    (of 134 short tasks in the threads pool, 59 never showed as ended). Sending each under the dispatcher's own lock
    loses none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"buffer_group": None})


class WorkerEvents(Events):
    """`app.events` of workers."""

    dispatcher_cls = f"{__name__}:PromptDispatcher"


class WorkerConsumer(Consumer):
    """Takes messages from the queues, and does not listen to other workers: they neither follow each other's events
    (gossip) nor ask each other for their clocks when they start (mingle). Labelmill uses neither, and both believe
    whatever comes over Redis."""

    def __init__(self, *args: Any, **options: Any) -> None:
        alone = {"without_gossip": True, "without_mingle": True}
        super().__init__(*args, **options | {"worker_options": {**(options.get("worker_options") or {}), **alone}})

    def cancel_active_requests(self) -> None:
        """End what runs: a forced shutdown (SIGQUIT, or Ctrl-C twice).

        Celery asks the pool to kill tasks. A pool of threads raises NotImplementedError: the worker would end with a
        traceback, and only once its tasks had gone on as if nothing had been said. There, requests are aborted
        instead, and their rows are released.
        """
        if can_kill_tasks(self.pool):
            super().cancel_active_requests()
        else:
            draining.force_shutdown(abort_requests)


def can_kill_tasks(pool: Any) -> bool:
    """Known once the pool has started: prefork sets the method then."""
    return getattr(pool.terminate_job, "__func__", None) is not BasePool.terminate_job


class WorkerApp(QueueApp):
    """The application of workers, beat and Flower."""

    events_cls = f"{__name__}:WorkerEvents"

    @classmethod
    def of(cls, settings: Settings) -> WorkerApp:
        """An application that checks every message. Connects to nothing."""
        app = cls.make(settings, checks_messages=True)
        app.conf.update(
            worker_consumer=f"{__name__}:WorkerConsumer",
            # beat has nothing to do: this one keeps no file, and asks for no clean-up of results: there are none
            beat_scheduler="celery.beat:Scheduler",
            result_expires=None,
        )
        return app
