"""The format that all messages on Redis share: a JSON object with headers, properties and a body of JSON in base64.

Any process that can write to Redis can write anything. A message is read by strict rules and then rebuilt: nothing that
was not checked reaches Celery.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from labelmill.contracts.messages import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # commands configure no logging: foreign text must not be printed by default

_ID = re.compile(r"[\w.:@-]{1,100}", re.ASCII)
_MAX_DEPTH = 12
_EXCERPT_CHARS = 4_000


@dataclass
class MalformedMessage(Exception):
    """A malformed message: it is dropped."""

    reason: str
    excerpt: str  #: The body where it can be read, else the entry itself. Not redacted.
    task: str | None = None
    message_id: str | None = None


@dataclass(frozen=True)
class Frame:
    """The parts of a message. `content`: its decoded body."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    content: Any
    text: str  #: The body as text, for excerpts.

    def refusal(self, reason: str) -> MalformedMessage:
        """The error for refusing the message."""
        task, number = self.headers.get("task"), self.headers.get("id")
        return MalformedMessage(
            reason, self.text, task if isinstance(task, str) else None, number if isinstance(number, str) else None
        )


def read_frame(entry: bytes | str) -> Frame:
    """Split a message into its parts. Raises MalformedMessage."""
    data = entry.encode("utf-8", "surrogatepass") if isinstance(entry, str) else entry
    excerpt = data[:_EXCERPT_CHARS].decode("utf-8", "replace")
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(
            f"{len(data)} bytes long, more than the {MAX_MESSAGE_BYTES} that a message may have", excerpt
        )
    try:
        message = orjson.loads(data)  # refuses NaN, lone surrogates, and values that are nested too deep
    except orjson.JSONDecodeError as error:
        raise MalformedMessage("it is not valid JSON", excerpt) from error
    if not isinstance(message, dict):
        raise MalformedMessage("it is not a valid message", excerpt)
    headers, properties, body = message.get("headers"), message.get("properties"), message.get("body")
    if not isinstance(headers, dict) or not isinstance(properties, dict) or not isinstance(body, str):
        raise MalformedMessage("it is not a valid message", excerpt)
    content = _decoded(body) if properties.get("body_encoding") == "base64" else None
    frame = Frame(headers, properties, None, excerpt if content is None else content.decode("utf-8", "replace"))
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        raise frame.refusal(f"its content is {str(message.get('content-type'))[:60]}, not application/json in utf-8")
    if headers.get("compression") is not None:
        raise frame.refusal("it is compressed")
    if content is None:
        raise frame.refusal("its body is not written in base64")
    try:
        return Frame(headers, properties, orjson.loads(content), frame.text)
    except orjson.JSONDecodeError as error:
        raise frame.refusal("its body cannot be read") from error


def write_frame(headers: dict[str, Any], content: Any, *, routing_key: str, **properties: Any) -> bytes:
    """A message for kombu, with a new delivery tag, so that no two messages share one."""
    return orjson.dumps(
        {
            "body": base64.b64encode(orjson.dumps(content)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "delivery_mode": 2,
                "delivery_tag": str(uuid4()),
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": routing_key},
                **properties,
            },
        }
    )


def is_id(value: object) -> bool:
    """Whether a value can be the id of a message, a task or a reply."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_line(value: object, max_chars: int) -> bool:
    """Whether a value is a text of one line that is safe to print to a terminal."""
    return isinstance(value, str) and len(value) <= max_chars and value.isprintable()


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_plain(value: object, depth: int = _MAX_DEPTH) -> bool:
    """Whether a value is JSON without `__type__`, from which kombu would create objects."""
    if isinstance(value, dict):
        return depth > 0 and "__type__" not in value and all(is_plain(part, depth - 1) for part in value.values())
    if isinstance(value, list):
        return depth > 0 and all(is_plain(part, depth - 1) for part in value)
    return True


def _decoded(body: str) -> bytes | None:
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def _log_drop(refusal: MalformedMessage, queue: str) -> None:
    log.warning("message dropped: %s (%s)", refusal.reason, queue[:100])


_drop: Callable[[MalformedMessage, str], None] = _log_drop


def drop_with(drop: Callable[[MalformedMessage, str], None]) -> None:
    """Call `drop` from now on with every malformed message of this process and the name of its queue."""
    global _drop  # noqa: PLW0603 - one a process
    _drop = drop


def drop(refusal: MalformedMessage, queue: str) -> None:
    """Record a malformed message that was removed from a queue. Never raises."""
    try:
        _drop(refusal, queue)
    except Exception:
        log.exception("a dropped message could not be kept")
