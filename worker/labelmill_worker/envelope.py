"""What a message may look like on Redis, before any of it reaches Celery.

Whoever can write to Redis can write anything: bodies of another serialisation, compressed ones that swell, callbacks
that name further tasks, Celery's own tasks, nested JSON. A worker takes what Labelmill sends and nothing else; of the
headers it keeps those it uses.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labelmill.contracts.messages import MAX_MESSAGE_BYTES, QUEUE_OF

_KEPT_HEADERS = ("lang", "task", "id", "root_id", "parent_id", "eta", "argsrepr", "kwargsrepr", "origin")
_FIXED_HEADERS: dict[str, Any] = {
    "retries": 0, "timelimit": [None, None], "expires": None, "group": None, "group_index": None, "shadow": None,
    "stamps": {}, "stamped_headers": None, "ignore_result": True, "replaced_task_nesting": 0,
}  # fmt: skip
_MAX_ID = 100


@dataclass
class NoMessageError(Exception):
    """An entry of a queue that no worker works on."""

    reason: str
    excerpt: str  #: The arguments where they can be read, else the entry itself. Not redacted.
    task: str | None = None
    message_id: str | None = None


def open_envelope(entry: str, loads: Any = json.loads) -> dict[str, Any]:
    """The message of a queue's entry, with the headers that Labelmill uses. Raises NoMessageError."""
    size = len(entry.encode("utf-8", "surrogatepass"))
    if size > MAX_MESSAGE_BYTES:
        raise NoMessageError(
            f"{size} bytes long, more than the {MAX_MESSAGE_BYTES} that a message may have", _start(entry)
        )
    try:
        message = loads(entry)
    except (ValueError, RecursionError, TypeError) as error:
        raise NoMessageError("it is no JSON document", _start(entry)) from error
    if not isinstance(message, dict):
        raise NoMessageError("it is no message", _start(entry))
    headers, properties = message.get("headers"), message.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict) or not isinstance(message.get("body"), str):
        raise NoMessageError("it is no message", _start(entry))
    content = _content(message["body"]) if properties.get("body_encoding") == "base64" else None
    excerpt = _start(entry) if content is None else content.decode("utf-8", "replace")
    task, message_id = headers.get("task"), headers.get("id")
    reason = _fault_of_envelope(message, headers, properties) or _fault_of_content(content)
    if reason is not None:
        raise NoMessageError(reason, excerpt, _name(task), _name(message_id))
    message["headers"] = {name: headers.get(name) for name in _KEPT_HEADERS} | _FIXED_HEADERS
    return message


def _fault_of_envelope(message: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> str | None:
    delivery = properties.get("delivery_info")
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(delivery, dict):
        return "it has no delivery tag"
    if not all(isinstance(delivery.get(name, ""), str) for name in ("exchange", "routing_key")):
        return "its delivery cannot be read"
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        return f"its content is {str(message.get('content-type'))[:60]}, not application/json in utf-8"
    if headers.get("compression") is not None:
        return "it is compressed"
    if not isinstance(headers.get("task"), str) or headers["task"] not in QUEUE_OF:
        return "no such task"
    if not _is_id(headers.get("id")) or not all(_is_id(headers.get(name) or "") for name in ("root_id", "parent_id")):
        return "it has no id"
    if not all(isinstance(headers.get(name) or "", str) for name in ("lang", "argsrepr", "kwargsrepr", "origin")):
        return "its headers cannot be read"
    try:
        if headers.get("eta") is not None:
            datetime.fromisoformat(headers["eta"])
    except (ValueError, TypeError):
        return "the time it is meant for cannot be read"
    return None


def _fault_of_content(content: bytes | None) -> str | None:
    if content is None:
        return "its body is not written in base64"
    try:
        parts = json.loads(content)
        positional, arguments, embedded = parts
    except (ValueError, RecursionError, TypeError):
        return "its body cannot be read"
    if positional or not isinstance(arguments, dict) or not isinstance(embedded, dict):
        return "its arguments are not named ones"
    if any(embedded.values()):
        return "it names tasks that should follow it"
    return None


def _content(body: str) -> bytes | None:
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_ID


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _start(entry: str) -> str:
    return entry[:20_000]  # enough that no secret is cut before it is taken out
