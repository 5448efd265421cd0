"""Messages on Redis that come twice, out of order, from elsewhere, or malformed."""

from __future__ import annotations

import base64
import json
import random
import uuid
from typing import Any

from rig import Rig

from faults import InjectedFault

_LISTS = [f"{queue}{step}" for queue in ("prepare", "train", "classify") for step in ("", "\x06\x163", "\x06\x166")]


def _double(rig: Rig, rng: random.Random) -> None:
    del rng
    with rig.admin() as client:
        for name in _LISTS:
            if entries := client.lrange(name, 0, -1):
                client.rpush(name, *entries)
        # what workers hold now comes again, as after a reset connection
        for unacknowledged in client.hvals("unacked"):
            message, _, queue = json.loads(unacknowledged)
            client.rpush(queue, json.dumps(message))


def _shuffle(rig: Rig, rng: random.Random) -> None:
    with rig.admin() as client:
        for name in _LISTS:
            entries = client.lrange(name, 0, -1)
            if entries:
                rng.shuffle(entries)
                with client.pipeline() as pipeline:
                    pipeline.delete(name)
                    pipeline.rpush(name, *entries)
                    pipeline.execute()


def _message(task: str, arguments: Any, queue: str) -> str:
    number = str(uuid.uuid4())
    body = base64.b64encode(json.dumps([[], arguments, {"callbacks": None}]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": number, "root_id": number, "parent_id": None, "group": None},
            "properties": {
                "correlation_id": number,
                "delivery_mode": 2,
                "priority": 0,
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "", "routing_key": queue},
                "body_encoding": "base64",
            },
        }
    )


def _malformed_messages(rig: Rig, rng: random.Random) -> None:
    wrong: list[tuple[str, Any]] = [
        ("labelmill.classify", {"job_id": "batch_00000000", "chunk": 3}),
        ("labelmill.classify", {"job_id": "../../etc/passwd", "chunk": 1}),
        ("labelmill.classify", {"job_id": 7, "chunk": "x" * 5000}),
        ("labelmill.classify", {}),
        ("labelmill.train", {"job_id": "train_ffffffff", "v": 99}),
        ("labelmill.prepare", {"job_id": "prep_ffffffff", "unknown": [1, 2]}),
        ("labelmill.evaluate", {"chunk": None}),
        ("os.system", {"command": "true"}),
    ]
    with rig.admin() as client:
        for task, arguments in rng.sample(wrong, 4):
            queue = rng.choice(("prepare", "train", "classify"))
            client.lpush(queue, _message(task, arguments, queue))


def _malformed_entries(rig: Rig, rng: random.Random) -> None:
    with rig.admin() as client:
        for _ in range(2):
            client.lpush(rng.choice(_LISTS), rng.choice(("not json", "[]", "{}", '{"body": 1}', "\x00\xff", "null")))


FAULTS = (
    InjectedFault("messages come twice", _double),
    InjectedFault("messages come in another order", _shuffle),
    InjectedFault("malformed messages among the others", _malformed_messages),
    InjectedFault("entries that are not messages", _malformed_entries),
)
