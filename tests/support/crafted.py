"""Messages as somebody with access to Redis could write them."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any


def envelope(task: str, arguments: Any, **changes: Any) -> dict[str, Any]:
    """A message that Labelmill would send, with `changes` of its headers."""
    number = str(uuid.uuid4())
    body = [[], arguments, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    return message_of(body, {"lang": "py", "task": task, "id": number, "root_id": number, "parent_id": None} | changes)


def command(method: str, **changes: Any) -> dict[str, Any]:
    """A remote-control command as Celery sends it, with `changes` of its body."""
    body: dict[str, Any] = {"method": method, "arguments": {}, "destination": None, "pattern": None, "matcher": None}
    return message_of(body | changes, {"clock": 1, "expires": time.time() + 60})


def event(kind: str, **changes: Any) -> dict[str, Any]:
    """An event as a worker sends it, with `changes` of its fields."""
    fields = {"hostname": "celery@here", "utcoffset": 0, "pid": 1, "clock": 1, "timestamp": time.time(), "type": kind}
    return message_of(fields | changes, {"hostname": "celery@here"})


def message_of(content: Any, headers: Any) -> dict[str, Any]:
    """A message as kombu writes it."""
    return {
        "body": body_of(json.dumps(content).encode()),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": str(uuid.uuid4()),
            "delivery_mode": 2,
            "priority": 0,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "classify"},
            "body_encoding": "base64",
        },
    }


def body_of(content: bytes) -> str:
    """A body as it stands in a message."""
    return base64.b64encode(content).decode()
