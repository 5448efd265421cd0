"""Ties task names to the functions that carry them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from labelmill.contracts.errors import InvalidInput, Retryable
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
from labelmill.contracts.queue import MessageSender
from labelmill.contracts.settings import Settings
from labelmill_worker.bootstrap import Services, process_services
from labelmill_worker.store.faults import record_fault
from labelmill_worker.tasks import classify, evaluate, prepare, sweep, train

log = structlog.get_logger()


def register_tasks(app: Celery, settings: Settings) -> None:
    """Give `app` every task. A fault that will pass ends the task quietly: SQL still owes the work, the sweeper
    sends it again."""
    sender = MessageSender(app)

    def add(name: str, kind: type[JobMessage] | None, work: Callable[[Services, Any], None]) -> None:
        def task(**arguments: Any) -> None:
            with structlog.contextvars.bound_contextvars(task=name, **arguments):
                message = None
                try:
                    message = decode(kind, arguments) if kind else None
                    work(process_services(settings, sender), message)
                except InvalidInput as error:
                    log.error("message dropped", reason=error.message)
                except Retryable as error:
                    log.warning("put off", reason=error.message)
                except Exception as fault:
                    # the task boundary: a fault of ours must not send a job round in circles for ever
                    if message is not None:
                        record_fault(process_services(settings, sender).engine, message, fault)
                    raise

        # sweeps come every few seconds: in Flower they would bury the jobs
        app.task(name=name, typing=False, send_events=name != SWEEP)(task)

    add(PREPARE, JobMessage, prepare.run)
    add(TRAIN, JobMessage, train.run)
    add(CLASSIFY, ChunkMessage, classify.run)
    add(EVALUATE, JobMessage, evaluate.run)
    add(SWEEP, None, sweep.run)
