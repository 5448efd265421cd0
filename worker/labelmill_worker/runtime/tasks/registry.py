"""Ties task names to the functions that carry them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, current_task

from labelmill.contracts.errors import DatabaseOutdated, DatabaseUnsuitable, InvalidInput, Retryable
from labelmill.contracts.messages import (
    CLASSIFY,
    EVALUATE,
    PREPARE,
    SWEEP,
    TRAIN,
    ChunkMessage,
    JobMessage,
    decode,
)
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_worker.runtime.bootstrap import ProcessResources, process_resources
from labelmill_worker.runtime.dead_letters import process_dead_letters
from labelmill_worker.runtime.tasks import classify, evaluate, prepare, sweep, train
from labelmill_worker.store.jobs import job_exists

log = structlog.get_logger()


def register_tasks(app: Celery, settings: Settings) -> None:
    """Give `app` every task. A fault that will pass ends the task quietly: the work stands in SQL, and recovery
    sends it again."""
    sender = MessageSender(app)

    def add(name: str, kind: type[JobMessage] | None, work: Callable[[ProcessResources, Any], None]) -> None:
        def task(**arguments: Any) -> None:
            with structlog.contextvars.bound_contextvars(task=name, **_loggable(arguments)):
                try:
                    message = decode(kind, arguments) if kind else None
                    resources = process_resources(settings, sender)
                    if message is not None and not job_exists(resources.engine, message.job_id):
                        raise InvalidInput("message refused: there is no such job")
                    work(resources, message)
                except InvalidInput as error:
                    _drop(settings, name, arguments, error.message)
                except (Retryable, DatabaseOutdated, DatabaseUnsuitable) as error:
                    log.warning("put off", reason=error.message)

        # sweeps may come every few seconds: in Flower they would bury the jobs
        app.task(name=name, typing=False, send_events=name != SWEEP)(task)

    add(PREPARE, JobMessage, prepare.run)
    add(TRAIN, JobMessage, train.run)
    add(CLASSIFY, ChunkMessage, classify.run)
    add(EVALUATE, JobMessage, evaluate.run)
    add(SWEEP, None, sweep.run)


def _loggable(arguments: dict[str, Any]) -> dict[str, Any]:
    # what came with a message must not stand in for a line's own fields
    return {name: arguments[name] for name in ("job_id", "chunk") if isinstance(arguments.get(name), str | int)}


def _drop(settings: Settings, name: str, arguments: dict[str, Any], reason: str) -> None:
    request = current_task.request if current_task else None
    delivery = (request.delivery_info or {}) if request else {}
    process_dead_letters(settings).drop(
        reason,
        json.dumps(arguments, default=repr),
        queue_name=delivery.get("routing_key"),
        task=name,
        message_id=request.id if request else None,
    )
