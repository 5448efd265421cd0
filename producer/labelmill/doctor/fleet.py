"""Checks of what workers report: versions, queues, clocks, disks, and whether Mistral accepts each one's key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, FiniteFloat, StringConstraints, ValidationError

from labelmill import __version__
from labelmill.contracts.messages import INSPECT, QUEUES
from labelmill.core.queue.sender import asking_app
from labelmill.core.settings import Settings
from labelmill.doctor.checks import Check, Status, failed, ok, unknown, warning

WorkerReplies = dict[str, dict[str, Any]]  #: By the worker's name.

_Word = Annotated[str, StringConstraints(max_length=4_000)]


class _MistralReport(BaseModel):
    looking: bool = False
    status: _Word = ""
    summary: _Word = ""
    remedy: _Word = ""
    refused: bool = False


class _WorkerReply(BaseModel):
    """A worker's report about itself. It comes over Redis: a reply of another form is ignored."""

    version: _Word
    queues: list[_Word] = []
    clock: FiniteFloat = 0.0
    disk: _Word | None = None
    mistral: _MistralReport = _MistralReport()


ANSWER_S = 2.0
_POLL_S = 1.0
_START = "start one: celery -A labelmill_worker.app worker -n NAME@%h -Q prepare,train,classify"
_REDIS_FIRST = "first what is wrong with Redis"
CREDENTIALS_REFUSED = 5


def ask_workers(settings: Settings, mistral_s: float) -> WorkerReplies:
    """Every worker's reply within some seconds; its check of Mistral gets `mistral_s`. Raises errors of the broker."""
    app = asking_app(settings)
    try:
        answers = _broadcast(app, ANSWER_S, None)
        deadline = time.monotonic() + mistral_s
        while (looking := [name for name in answers if _is_looking(answers[name])]) and time.monotonic() < deadline:
            time.sleep(0.2)
            answers |= _broadcast(app, _POLL_S, looking)
        return answers
    finally:
        app.close()


def _broadcast(app: Any, timeout_s: float, names: list[str] | None) -> WorkerReplies:
    replies = app.control.broadcast(
        INSPECT, reply=True, timeout=timeout_s, destination=names, limit=len(names) if names else None
    )
    return {
        name: answer
        for reply in replies or ()
        for name, reply_of_worker in reply.items()
        if (answer := _answer(reply_of_worker))
    }


def _answer(raw_reply: object) -> dict[str, Any] | None:
    try:
        return _WorkerReply.model_validate(raw_reply).model_dump(exclude_unset=True)
    except ValidationError:
        return None


def _is_looking(answer: dict[str, Any]) -> bool:
    return bool(answer.get("mistral", {}).get("looking"))


def checks_of(answers: WorkerReplies, waiting: dict[str, int], now: float) -> Iterator[Check]:
    """The checks of the replies. `waiting`: messages by queue; `now`: seconds since 1970 when they came."""
    yield _workers(answers)
    yield _queues(answers, waiting)
    if answers:
        yield from _machines(answers, now)
    yield _mistral(answers)


def checks_without_redis() -> Iterator[Check]:
    """The checks when Redis is down: workers are asked through Redis, so nothing is known about them and Mistral."""
    yield unknown("workers", "workers are asked through Redis", _REDIS_FIRST)
    yield unknown("queues", "messages wait in Redis", _REDIS_FIRST)
    yield unknown("mistral", "it is workers that ask Mistral", _REDIS_FIRST)


def _workers(answers: WorkerReplies) -> Check:
    if not answers:
        return failed("workers", "no worker answers", _START)
    versions = {str(answer["version"]) for answer in answers.values()}
    many = f"{len(answers)} worker{'s' if len(answers) > 1 else ''}"
    if versions != {__version__}:
        summary = f"{many} of version {', '.join(sorted(versions))}; this command is {__version__}"
        return warning("workers", summary, "install the same version everywhere")
    return ok("workers", f"{many} of version {__version__}")


def _queues(answers: WorkerReplies, waiting: dict[str, int]) -> Check:
    served = {str(queue) for answer in answers.values() for queue in answer.get("queues", ())}
    orphans = [queue for queue in QUEUES if queue not in served]
    counts = ", ".join(f"{queue} {waiting.get(queue, 0)}" for queue in QUEUES)
    if not orphans:
        return ok("queues", f"every queue has a consumer; waiting: {counts}")
    summary = f"nobody serves {', '.join(orphans)}; waiting: {counts}"
    remedy = f"start a worker with -Q {','.join(orphans)}"
    if any(waiting.get(queue) for queue in orphans):
        return failed("queues", summary, remedy)
    return warning("queues", summary, remedy)


def _machines(answers: WorkerReplies, now: float) -> Iterator[Check]:
    troubled = {name: str(answer["disk"]) for name, answer in answers.items() if answer.get("disk")}
    if troubled:
        name, trouble = next(iter(troubled.items()))
        yield failed("workers' data folder", f"{name}: {trouble}", "make room there, or correct LABELMILL_DATA_DIR")
    else:
        yield ok("workers' data folder", "every worker can write to it")
    skew = max((abs(float(answer.get("clock", now)) - now) for answer in answers.values()), default=0.0)
    if skew > 30:
        yield warning("workers' clocks", f"one is {skew:.0f} s off this machine's", "run NTP everywhere")


def _mistral(answers: WorkerReplies) -> Check:
    if not answers:
        return unknown("mistral", "it is workers that ask Mistral, and none answers", "first what keeps workers away")
    worst = {Status.FAILED: 3, Status.WARNING: 2, Status.UNKNOWN: 1, Status.OK: 0}
    checks = []
    for name, answer in sorted(answers.items()):
        report = answer.get("mistral", {})
        if report.get("looking"):
            checks.append(
                failed(
                    "mistral",
                    f"{name} still waits for an answer from Mistral",
                    "check LABELMILL_MISTRAL_URL and the network",
                )
            )
            continue
        status = Status(report["status"]) if report.get("status") in list(Status) else Status.FAILED
        code = CREDENTIALS_REFUSED if report.get("refused") else 1
        summary = str(report.get("summary") or "it does not report on Mistral")
        summary = summary if status is Status.OK else f"{name}: {summary}"
        checks.append(Check("mistral", status, summary, str(report.get("remedy", "")), code))
    return max(checks, key=lambda check: (worst[check.status], check.exit_code))
