"""What somebody with access to Redis could send to workers, of every kind we know, and as many more by chance."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

from crafted import body_of, command, envelope, event, message_of

from labelmill.contracts.messages import CLASSIFY, EVALUATE, INSPECT, PREPARE, SWEEP, TRAIN

DEEP = "1" + "+1j" * 8_000  # evaluating it exceeds Python's recursion limit
_JOB = {"job_id": "batch_0123456789ab", "chunk": 0, "v": 1}
_SWOLLEN = gzip.compress(b" " * 50_000_000)
_ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    -(10**300),
    1e308,
    "",
    "x" * 30_000,
    "a." * 5_000,
    DEEP,
    "\x1b[2J\x1b]0;x\x07",
    "\u202e",
    "\x00",
    "Bearer " * 3_000,
    "://a:" * 3_000,
    "batch_0123456789ab",
    "celery@here",
    [],
    [1],
    [[[]]],
    {},
    {"a": {}},
    {"__type__": "decimal", "__value__": "1e999999"},
    ["x"] * 2_000,
    "9999-12-31T23:59:59-14:00",
    "9" * 4_000,
)


def task_messages() -> list[Any]:
    """For a queue: each is dropped or does nothing."""
    good = envelope(CLASSIFY, _JOB)
    swollen = base64.b64encode(zlib.compress(b" " * 50_000_000)).decode()
    return [
        envelope(CLASSIFY, _JOB, kwargsrepr=DEEP),
        envelope(CLASSIFY, _JOB, argsrepr=DEEP),
        envelope(SWEEP, {}, kwargsrepr="[" * 9_000),
        envelope(CLASSIFY, _JOB, kwargsrepr="{" * 9_000),
        envelope(CLASSIFY, _JOB, kwargsrepr="a." * 9_000),
        envelope(TRAIN, _JOB, origin=DEEP, lang=DEEP),
        envelope(CLASSIFY, _JOB, root_id=["x"]),
        envelope(CLASSIFY, _JOB, parent_id={"x": 1}),
        envelope(CLASSIFY, _JOB, id="\x1b[2J"),
        envelope(CLASSIFY, _JOB, timelimit=["x"], retries="y", stamps=7),
        envelope(CLASSIFY, _JOB, eta="9999-12-31T23:59:59-14:00"),
        envelope(EVALUATE, {"job_id": "a." * 8_000}),
        envelope(PREPARE, {"job_id": "\x1b[2J\u202e"}),
        envelope(CLASSIFY, {"job_id": ["x"] * 3_000}),
        good | {"properties": good["properties"] | {"priority": 1e308, "delivery_info": {"routing_key": "unacked"}}},
        good | {"properties": good["properties"] | {"delivery_tag": ["x"], "correlation_id": {}}},
        good | {"headers": good["headers"] | {"compression": "zlib"}, "body": swollen},
        good | {"body": body_of(json.dumps([[], _JOB, {"args": None, "id": "", "hostname": 0}]).encode())},
        good | {"headers": "text"},
        good | {"headers": None},
        good | {"properties": [1]},
        [good],
        {},
        "text",
        7,
    ]


def publications() -> list[Any]:
    """For the channel of remote control: none may do anything."""
    good = command("ping")
    reply_to = {"exchange": "reply.celery.pidbox", "routing_key": "x"}
    return [
        good | {"headers": "text"},
        good | {"headers": ["x"]},
        message_of([1], {}),
        message_of("ping", {}),
        message_of(None, {}),
        good | {"headers": {"compression": "application/x-gzip"}, "body": base64.b64encode(_SWOLLEN).decode()},
        good | {"headers": {"clock": "x"}},
        good | {"headers": {"clock": 10**4_000}},
        command("ping", pattern="(c+)+!", matcher="pcre"),
        command("ping", pattern="*a" * 500, matcher="glob"),
        command("ping", destination=7),
        command("ping", destination="celery"),
        command("ping", arguments=[1]),
        command("ping", arguments={"state": 1}),
        command("no such command"),
        command(["ping"]),  # type: ignore[arg-type]
        command("election", arguments={"id": "x", "topic": "task", "action": {"task": "os.system"}}),
        command("hello", arguments={"from_node": "x", "revoked": {"a": "b"}}),
        command("rate_limit", arguments={"x": DEEP}),
        command("ping", reply_to=7, ticket="x"),
        command("ping", reply_to=reply_to, ticket=["x"]),
        command("ping", reply_to={"exchange": "", "routing_key": "classify"}, ticket="x"),
        command("revoke", arguments={"task_id": [{"x": 1}]}),
        command("pool_grow", arguments={"n": 10**9}),
        good | {"content-type": "application/x-python-serialize"},
        good | {"body": body_of(b"[" * 40_000)},
        good | {"properties": None},
        good | {"body": 7},
        {},
        [],
        7,
        None,
        "x" * 100_000,
        message_of({"method": "ping"}, None),
    ]


def events() -> list[Any]:
    """For the channel of events, which Flower reads."""
    beat = event("worker-heartbeat")
    return [
        event("worker-heartbeat", hostname=["x"]),
        event("worker-heartbeat", hostname="\x1b[2J"),
        event("worker-heartbeat", timestamp="x"),
        event("worker-heartbeat", clock="x"),
        event("worker-heartbeat", pid=[]),
        event("worker-heartbeat", as_dict=1, update=2),
        event("task-received", uuid=["x"]),
        event("task-received"),
        event("task-received", uuid="1", name="x" * 5_000),
        event("task-sent", uuid="1", kwargs=DEEP),
        event("task-succeeded", uuid="1", runtime="x"),
        event("no-such-type"),
        event("worker-online", freq=0.0),
        beat | {"headers": 7},
        message_of([7], {}),
        message_of([[]], {}),
        [],
        7,
        "x" * 100_000,
    ]


def fuzzed(seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """`count` messages, alike for a seed, each with the kind that it is a distortion of."""
    rng = random.Random(seed)
    while count:
        kind = rng.choice(("task", "command", "event"))
        content, headers = _plain(rng, kind)
        for _ in range(rng.randint(1, 3)):
            _distort(rng, rng.choice((content, headers)))
        message = message_of(rng.choice((content, content, content, rng.choice(_ODD))), headers)
        if rng.random() < 0.4:
            message[rng.choice(list(message))] = rng.choice(_ODD)
        if rng.random() < 0.3:
            message["properties"] = message_of(0, {})["properties"] | {rng.choice(_PROPERTIES): rng.choice(_ODD)}
        yield kind, message
        count -= 1


_PROPERTIES = (
    "priority",
    "delivery_tag",
    "delivery_info",
    "correlation_id",
    "reply_to",
    "body_encoding",
    "delivery_mode",
)


def _plain(rng: random.Random, kind: str) -> tuple[Any, dict[str, Any]]:
    if kind == "task":
        headers = envelope(rng.choice((CLASSIFY, TRAIN, PREPARE, EVALUATE, SWEEP)), {})["headers"]
        return [[], dict(_JOB), {"chain": None}], headers | {"kwargsrepr": "{}", "argsrepr": "()", "eta": None}
    if kind == "command":
        method = rng.choice(("ping", "stats", "clock", INSPECT, "active", "query_task", "heartbeat"))
        return {"method": method, "arguments": {"ids": []}, "destination": None, "pattern": None, "reply_to": None}, {
            "clock": 1
        }
    fields = {"hostname": "celery@here", "utcoffset": 0, "pid": 1, "clock": 1, "timestamp": 1e9, "uuid": "1"}
    return fields | {"type": rng.choice(("worker-heartbeat", "task-received", "task-failed"))}, {"hostname": "x"}


def _distort(rng: random.Random, part: Any) -> None:
    if isinstance(part, list) and part:
        inner = rng.choice(part)
        if isinstance(inner, dict) and inner and rng.random() < 0.7:
            part = inner
        else:
            part[rng.randrange(len(part))] = rng.choice(_ODD)
            return
    if isinstance(part, dict) and part:
        part[rng.choice(list(part))] = rng.choice(_ODD)
