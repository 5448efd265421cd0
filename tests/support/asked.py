"""What tests ask of the services, in one call each: what is submitted is started too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from labelmill.cli.field_options import words_of
from labelmill.contracts.errors import InvalidInput, LabelmillError
from labelmill.contracts.ids import Kind
from labelmill.core.money.prices import LISTED, PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.core.storage.opening import open_storage
from labelmill.report.gather import gather_report as gather
from labelmill.report.parts import Report
from labelmill.services.batches import ClassifyRequest, accept_batch
from labelmill.services.context import ServiceContext
from labelmill.services.datasets import PrepareRequest, accept_preparation
from labelmill.services.evaluations import EvaluateRequest, accept_evaluation
from labelmill.services.jobs import actions
from labelmill.services.jobs.requests import JobRequest, RetryRequest
from labelmill.services.jobs.retrying import retry as retry_job
from labelmill.services.submissions.accepted import Accepted, start
from labelmill.services.trainings import TrainRequest, accept_training
from labelmill.services.trainings import approve as approve_training

Warn = Callable[[str], None]
Submissions = dict[Kind, tuple[Callable[..., Any], list[dict[str, Any]]]]  #: How to submit, and options that differ.


def ignore_warning(_: str) -> None:
    """For tests that expect no warning."""


def started(context: ServiceContext, accepted: Accepted, warn: Warn) -> str:
    """Send its messages. Returns the job's id."""
    for warning in start(context, accepted).warnings:
        warn(warning.message)
    return accepted.id


def submit_batch(
    engine: Engine,
    sender: MessageSender,
    *,
    source: str,
    model: str,
    warn: Warn = ignore_warning,
    on_progress: Callable[[int], None] = lambda _: None,
    **options: Any,
) -> str:
    context = ServiceContext(engine, sender)
    return started(context, accept_batch(context, ClassifyRequest.of(source, model, **options), on_progress), warn)


def submit_prepare(
    engine: Engine,
    sender: MessageSender,
    settings: Settings,
    *,
    name: str,
    source: str,
    warn: Warn = ignore_warning,
    **options: Any,
) -> str:
    context = ServiceContext(engine, sender, open_storage(settings))
    return started(context, accept_preparation(context, PrepareRequest.of(name, source, **options)), warn)


def submit_training(
    engine: Engine, sender: MessageSender, *, name: str, dataset: str, warn: Warn = ignore_warning, **options: Any
) -> str:
    context = ServiceContext(engine, sender)
    return started(context, accept_training(context, TrainRequest.of(name, dataset, **options)), warn)


def submit_evaluation(engine: Engine, sender: MessageSender, *, warn: Warn = ignore_warning, **options: Any) -> str:
    context = ServiceContext(engine, sender)
    return started(context, accept_evaluation(context, EvaluateRequest(**options)), warn)


def approve(engine: Engine, sender: MessageSender, training_id: str) -> None:
    approve_training(ServiceContext(engine, sender), JobRequest(training_id))


def cancel(engine: Engine, sender: MessageSender, job_id: str) -> None:
    actions.cancel(ServiceContext(engine, sender), JobRequest(job_id))


def retry(engine: Engine, sender: MessageSender, job_id: str, max_cost: float | None = None) -> None:
    retry_job(ServiceContext(engine, sender), RetryRequest(job_id, max_cost))


def gather_report(engine: Engine, job_id: str, prices: PriceList = LISTED) -> Report:
    return gather(ServiceContext(engine, MessageSender.connect(Settings()), prices=prices), JobRequest(job_id))


@contextmanager
def refused(words: str, kind: type[LabelmillError] = InvalidInput) -> Iterator[None]:
    """What happens within is refused, in words that the command line shows with options for fields."""
    with pytest.raises(kind) as raised:
        yield
    assert re.search(words, words_of(raised.value)), words_of(raised.value)
