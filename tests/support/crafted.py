"""Messages as somebody with access to Redis could write them."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any


def envelope(task: str, arguments: Any, **changes: Any) -> dict[str, Any]:
    """A message that Labelmill would send, with `changes` of its headers."""
    number = str(uuid.uuid4())
    body = json.dumps([[], arguments, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": number, "root_id": number, "parent_id": None} | changes,
        "properties": {
            "correlation_id": number, "delivery_mode": 2, "priority": 0, "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "classify"}, "body_encoding": "base64",
        },
    }  # fmt: skip


def body_of(content: bytes) -> str:
    """A body as it stands in a message."""
    return base64.b64encode(content).decode()
