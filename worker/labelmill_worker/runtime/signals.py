"""What Labelmill does at the signals of Celery's processes, in the order in which they come."""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery import signals

from labelmill.core.queue.wire.frame import drop_with
from labelmill.core.settings import load_settings
from labelmill_worker.mistral.client_config import check_connection_at_start
from labelmill_worker.process import draining
from labelmill_worker.runtime.bootstrap import abort_requests, close_database, forget_resources
from labelmill_worker.runtime.database_watch import check_at_start
from labelmill_worker.runtime.dead_letters import flush_dead_letters, forget_dead_letters, keep_malformed
from labelmill_worker.runtime.storage_check import check_storage_at_start

#: Celery's own names for what Labelmill has settings for. `QueueApp` does not listen to them.
_IGNORED = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")


def connect_signals() -> None:
    """Celery keeps each function once, however often it is connected."""
    signals.setup_logging.connect(_configure_logging)
    signals.celeryd_after_setup.connect(_check_surroundings)
    signals.worker_init.connect(_keep_malformed_messages)
    signals.worker_process_init.connect(_forget_parents_connections)
    signals.worker_shutting_down.connect(_drain)
    signals.worker_shutdown.connect(_leave_nothing_open)


def _configure_logging(**_: Any) -> None:
    """A process of Celery's begins to log."""
    from labelmill_worker.runtime.logging import configure_logging  # noqa: PLC0415 - only a process of Celery's logs

    configure_logging(load_settings())
    if ignored := [name for name in _IGNORED if os.environ.get(name)]:
        structlog.get_logger().warning("ignored: LABELMILL_BROKER_URL says where Redis is", variables=ignored)


def _check_surroundings(**_: Any) -> None:
    """A worker has read its options."""
    settings = load_settings()
    check_connection_at_start(settings)
    check_storage_at_start(settings)
    check_at_start(settings)


def _keep_malformed_messages(**_: Any) -> None:
    """A worker is about to start: what its transport drops becomes a dead letter, and not a log line alone."""
    drop_with(keep_malformed)


def _forget_parents_connections(**_: Any) -> None:
    """A prefork child begins. It must not use its parent's sockets."""
    forget_resources()
    forget_dead_letters()


def _drain(**_: Any) -> None:
    """A worker was told to end."""
    draining.begin(abort_requests)


def _leave_nothing_open(**_: Any) -> None:
    """A worker has ended its tasks."""
    flush_dead_letters()
    close_database()
