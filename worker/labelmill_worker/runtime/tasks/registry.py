"""Ties each task to the function that carries it out: `labelmill.prepare` to `run` of the module `prepare` here."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import structlog
from celery import Celery, current_task

from labelmill.contracts.errors import (
    DatabaseOutdated,
    DatabaseUnsuitable,
    InvalidInput,
    Retryable,
    StorageUnavailable,
)
from labelmill.contracts.job_kinds import CONTRACT_OF
from labelmill.contracts.messages import SWEEP, TASK_PREFIX, JobMessage, decode
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_worker.process.delays import note_storage_fault
from labelmill_worker.runtime.bootstrap import ProcessResources, process_resources
from labelmill_worker.runtime.dead_letters import process_dead_letters
from labelmill_worker.store.jobs import job_exists

log = structlog.get_logger()


def register_tasks(app: Celery, settings: Settings) -> None:
    """Give `app` every task. A temporary fault ends the task with a warning alone: the work stays in SQL, and
    recovery sends it again."""
    sender = MessageSender(app)

    def add(name: str, kind: type[JobMessage] | None, work: Callable[[ProcessResources, Any], None]) -> None:
        def task(**arguments: Any) -> None:
            with structlog.contextvars.bound_contextvars(task=name, **_loggable(arguments)):
                message: JobMessage | None = None
                try:
                    message = decode(kind, arguments) if kind else None
                    resources = process_resources(settings, sender)
                    if message is not None and not job_exists(resources.engine, message.job_id):
                        raise InvalidInput("message refused: there is no such job")
                    work(resources, message)
                except InvalidInput as error:
                    _drop(settings, name, arguments, error.message)
                except (Retryable, DatabaseOutdated, DatabaseUnsuitable) as error:
                    log.warning("deferred", reason=error.message)
                    if isinstance(error, StorageUnavailable) and message is not None:
                        note_storage_fault(process_resources(settings, sender).engine, message.job_id, error)

        # sweeps may come every few seconds: in Flower they would bury the jobs
        app.task(name=name, typing=False, send_events=name != SWEEP)(task)

    for name, contract in CONTRACT_OF.items():
        add(name, contract, work_of(name))


def work_of(task: str) -> Callable[[ProcessResources, Any], None]:
    """The function `run` of the module of this folder that is named as the task is. Raises TypeError where there is
    none."""
    module = f"{__package__}.{task.removeprefix(TASK_PREFIX)}"
    try:
        work: Callable[[ProcessResources, Any], None] = import_module(module).run
    except (ModuleNotFoundError, AttributeError) as error:
        raise TypeError(f"the task {task} needs a function run in {module}") from error
    return work


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
