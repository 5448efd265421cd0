"""Messages on the task queues: only those that Labelmill itself sends are accepted.

Refused are other serialisations, compressed bodies, callbacks that start further tasks, Celery's own tasks, and nested
JSON. Only the task, id, time, priority and arguments of an accepted message are kept. The text of the arguments that
Celery logs and Flower shows is generated here from the checked ones.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.job_kinds import CONTRACT_OF, QUEUE_OF
from labelmill.contracts.messages import decode
from labelmill.core.queue.wire.frame import Frame, is_id, read_frame, write_frame

#: The maximum delay of a message; Labelmill's own are at most a minute. A worker keeps delayed messages in memory.
_MAX_AHEAD = timedelta(hours=1)
_MAX_PRIORITY = 9
_FOLLOWED_BY_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_FIXED_HEADERS: dict[str, Any] = {
    "lang": "py",
    "retries": 0,
    "timelimit": [None, None],
    "expires": None,
    "group": None,
    "group_index": None,
    "shadow": None,
    "stamps": {},
    "stamped_headers": None,
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "parent_id": None,
    "origin": "",
    "argsrepr": "()",
}


def checked_task(entry: bytes | str) -> bytes:
    """The message of a queue's entry, rebuilt. Raises MalformedMessage."""
    frame = read_frame(entry)
    headers, properties = frame.headers, frame.properties
    task, number = headers.get("task"), headers.get("id")
    if not isinstance(task, str) or task not in QUEUE_OF:
        raise frame.refusal("no such task")
    if not is_id(number):
        raise frame.refusal("it has no id")
    arguments = _arguments(frame, task)
    priority = properties.get("priority")
    is_priority = isinstance(priority, int) and 0 <= priority <= _MAX_PRIORITY
    written = _FIXED_HEADERS | {
        "task": task,
        "id": number,
        "root_id": number,
        "eta": _due(frame),
        "kwargsrepr": repr(arguments),
    }
    return write_frame(
        written,
        [[], arguments, _FOLLOWED_BY_NOTHING],
        routing_key=QUEUE_OF[task],
        priority=priority if is_priority else 0,
        correlation_id=number,
    )


def _arguments(frame: Frame, task: str) -> dict[str, Any]:
    parts = frame.content
    if not isinstance(parts, list) or len(parts) != 3:
        raise frame.refusal("its body cannot be read")
    positional, arguments, embedded = parts
    if positional or not isinstance(arguments, dict) or not isinstance(embedded, dict):
        raise frame.refusal("its arguments are not named ones")
    if any(embedded.values()):
        raise frame.refusal("it names tasks that should follow it")
    contract = CONTRACT_OF[task]
    try:
        return decode(contract, arguments).model_dump() if contract else {}
    except InvalidInput as error:
        raise frame.refusal(error.message) from error


def _due(frame: Frame) -> str | None:
    """The time that a message is scheduled for; None: now."""
    if (written := frame.headers.get("eta")) is None:
        return None
    try:
        due = datetime.fromisoformat(written)
        due = (due if due.tzinfo else due.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise frame.refusal("the time it is meant for cannot be read") from error
    now = datetime.now(UTC)
    if due - now > _MAX_AHEAD:
        raise frame.refusal("the time it is meant for is more than an hour away")
    return due.isoformat() if due > now else None
