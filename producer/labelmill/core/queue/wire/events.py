"""Events, by which workers report to Flower.

Celery copies an event's fields into the objects that Flower shows without checking their names and values: a field
`as_dict` replaces a method. Unknown fields are removed; an event with a field of the wrong type is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.core.queue.wire.frame import is_id, is_line, is_number, read_frame, write_frame

Is = Callable[[object], bool]

_TYPES = frozenset(
    {
        "worker-online",
        "worker-heartbeat",
        "worker-offline",
        "task-sent",
        "task-received",
        "task-started",
        "task-succeeded",
        "task-failed",
        "task-rejected",
        "task-revoked",
        "task-retried",
        "task-cancelled",
    }
)
_NAME = re.compile(r"\w[\w.@:-]{0,299}")  # of a worker: it may stand in pages, metrics and logs
_MAX_EVENTS = 1_000  #: In one message.
_MAX_TEXT = 20_000  #: Characters of an exception or a traceback.
_MAX_CLOCK = 2**53


def _count(value: object, maximum: int = 2**31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum


def _between(value: object, minimum: float, maximum: float) -> bool:
    return is_number(value) and minimum <= float(value) <= maximum  # type: ignore[arg-type] # it is a number


def _loads(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_between(load, 0, 1e9) for load in value)


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _worker(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _task(value: object) -> bool:
    return isinstance(value, str) and value in QUEUE_OF


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _or_none(kind: Is) -> Is:
    return lambda value: value is None or kind(value)


_line: Is = partial(is_line, max_chars=2_000)
_seconds: Is = partial(_between, minimum=0, maximum=1e11)
_FIELDS: dict[str, Is] = {
    "type": lambda value: isinstance(value, str) and value in _TYPES,
    "hostname": _worker,
    "timestamp": _seconds,
    "clock": partial(_count, maximum=_MAX_CLOCK),
    "pid": _count,
    "utcoffset": partial(_between, minimum=-24, maximum=24),
    "freq": partial(_between, minimum=0, maximum=1e6),
    "active": _count,
    "processed": _count,
    "loadavg": _loads,
    "sw_ident": _line,
    "sw_ver": _line,
    "sw_sys": _line,
    "uuid": is_id,
    "root_id": _or_none(is_id),
    "parent_id": _or_none(is_id),
    "name": _task,
    "args": _or_none(_line),
    "kwargs": _or_none(_line),
    "retries": _count,
    "eta": _or_none(_line),
    "expires": _or_none(_line),
    "queue": _or_none(_line),
    "exchange": _or_none(_line),
    "routing_key": _or_none(_line),
    "result": _or_none(_text),
    "runtime": _or_none(_seconds),
    "exception": _or_none(_text),
    "traceback": _or_none(_text),
    "terminated": _flag,
    "expired": _flag,
    "requeue": _flag,
    "signum": _or_none(partial(_count, maximum=200)),
}
_ALWAYS = ("type", "hostname", "timestamp", "pid", "utcoffset")


def checked_events(entry: bytes | str) -> bytes:
    """The events of a published message, rebuilt. Raises MalformedMessage."""
    frame = read_frame(entry)
    contents = frame.content if isinstance(frame.content, list) else [frame.content]
    if len(contents) > _MAX_EVENTS:
        raise frame.refusal("it holds too many events")
    events = [_event(content) for content in contents]
    if None in events:
        raise frame.refusal("it is not an event of Celery's")
    return write_frame({}, events, routing_key="")


def _event(content: object) -> dict[str, Any] | None:
    if not isinstance(content, dict):
        return None
    event = {name: value for name, value in content.items() if name in _FIELDS}
    needed = (*_ALWAYS, "uuid") if str(event.get("type")).startswith("task-") else _ALWAYS
    if any(name not in event for name in needed):
        return None
    return event if all(_FIELDS[name](value) for name, value in event.items()) else None
