"""The Celery application. Importing it reads settings and connects to nothing.

celery -A labelmill_worker.app worker -Q prepare,train,classify -c 4
celery -A labelmill_worker.app flower
"""

from __future__ import annotations

import os
import sys
from typing import Any

import structlog
from celery import Celery, signals

from labelmill.contracts.errors import InvalidInput
from labelmill.core.queue.application import QueueApp
from labelmill.core.queue.wire.transport import use_checking_transport
from labelmill.core.settings import Settings, load_settings
from labelmill_worker.mistral.client_config import check_way_at_start
from labelmill_worker.process import draining
from labelmill_worker.runtime import health_check
from labelmill_worker.runtime.alive import AliveStep
from labelmill_worker.runtime.bootstrap import close_database, forget_resources, give_up_requests
from labelmill_worker.runtime.database_watch import check_at_start
from labelmill_worker.runtime.dead_letters import flush_dead_letters, forget_dead_letters
from labelmill_worker.runtime.flower import prepare_flower
from labelmill_worker.runtime.forced_shutdown import QuitThreads
from labelmill_worker.runtime.long_work_step import LongWorkStep
from labelmill_worker.runtime.malformed import KeepMalformedMessages, listen_to_no_worker
from labelmill_worker.runtime.readiness import Readiness
from labelmill_worker.runtime.recovery.step import RecoveryStep
from labelmill_worker.runtime.task_events import SendTaskEventsAtOnce
from labelmill_worker.runtime.tasks.registry import register_tasks

#: Celery's own names for what Labelmill has settings for. `QueueApp` does not listen to them.
_IGNORED = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")


def create_app(settings: Settings | None = None) -> Celery:
    """A Celery application with every task of Labelmill."""
    settings = settings or load_settings()
    use_checking_transport()
    app = QueueApp.make(settings)
    # beat has nothing to do: this one keeps no file, and asks for no clean-up of results, of which there are none
    app.conf.beat_scheduler = "celery.beat:Scheduler"
    app.conf.result_expires = None
    app.steps["worker"].add(LongWorkStep)
    app.steps["worker"].add(RecoveryStep)
    app.steps["worker"].add(AliveStep)
    app.steps["consumer"].add(SendTaskEventsAtOnce)
    app.steps["consumer"].add(KeepMalformedMessages)
    app.steps["consumer"].add(QuitThreads)
    app.steps["worker"].add(Readiness)
    register_tasks(app, settings)
    return app


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    from labelmill_worker.runtime.logging import configure_logging  # noqa: PLC0415 - only a process of Celery's logs

    configure_logging(load_settings())
    if ignored := [name for name in _IGNORED if os.environ.get(name)]:
        structlog.get_logger().warning("ignored: LABELMILL_BROKER_URL says where Redis is", variables=ignored)


@signals.worker_init.connect
def _work_alone(sender: Any, **_: Any) -> None:
    listen_to_no_worker(sender)


@signals.celeryd_after_setup.connect
def _check_surroundings(**_: Any) -> None:
    settings = load_settings()
    check_way_at_start(settings)
    check_at_start(settings)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    draining.begin(give_up_requests)


@signals.worker_process_init.connect
def _forget_parents_connections(**_: Any) -> None:
    forget_resources()  # prefork: a child must not use its parent's sockets
    forget_dead_letters()


@signals.worker_shutdown.connect
def _leave_nothing_open(**_: Any) -> None:
    flush_dead_letters()
    close_database()


def _app_of_this_process() -> Celery:
    try:
        return create_app()
    except InvalidInput as error:
        # Celery's command would print a traceback
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(error.exit_code) from error


__all__ = ["app", "create_app", "health_check"]  # importing `health_check` adds its command

prepare_flower()  # only importing the application comes before Flower reads its options
app = _app_of_this_process()
