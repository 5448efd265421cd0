"""Messages on the task queues: what Labelmill never sends is refused with the reason, and nothing is kept unchecked."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from crafted import body_of, envelope

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.messages import (
    CLASSIFY,
    MAX_MESSAGE_BYTES,
    SWEEP,
    TRAIN,
    ChunkMessage,
    JobMessage,
    decode,
    named_job,
)
from labelmill.core.queue.wire.frame import MalformedMessage
from labelmill.core.queue.wire.tasks import checked_task

GOOD = {"job_id": "batch_0123456789ab", "chunk": 0, "v": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"content-type": "application/x-python-serialize"}, "not application/json"),
        ({"content-type": "application/x-yaml"}, "not application/json"),
        ({"content-encoding": "binary"}, "not application/json"),
        ({"body": body_of(b"[" * 40_000)}, "cannot be read"),
        ({"body": body_of(b"not json")}, "cannot be read"),
        ({"body": "%%%"}, "base64"),
        ({"body": 7}, "not a valid message"),
        ({"body": body_of(json.dumps([["x"], {}, {}]).encode())}, "not named ones"),
        ({"body": body_of(json.dumps([[], {}, {"chain": [{"task": CLASSIFY}]}]).encode())}, "should follow"),
        ({"body": "A" * MAX_MESSAGE_BYTES}, "that a message may have"),
        ({"headers": {"task": "os.system", "id": "1"}}, "no such task"),
        ({"headers": {"task": "celery.starmap", "id": "1"}}, "no such task"),
        ({"headers": {"task": ["x"], "id": "1"}}, "no such task"),
        ({"headers": {"task": CLASSIFY, "id": {"a": 1}}}, "no id"),
        ({"headers": {"task": CLASSIFY, "id": "1", "compression": "application/x-bz2"}}, "compressed"),
        ({"headers": {"task": CLASSIFY, "id": "1", "eta": [1]}}, "time"),
        ({"headers": {"task": CLASSIFY, "id": "1", "eta": "whenever"}}, "time"),
        ({"properties": {}}, "base64"),
        ({"properties": []}, "not a valid message"),
    ],
)
def test_what_labelmill_never_sends_is_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessage) as refused:
        checked_task(json.dumps(envelope(CLASSIFY, GOOD) | change))
    assert reason in refused.value.reason


@pytest.mark.parametrize("entry", ["", "null", "[]", "7", "{}", "[" * 60_000, "\x00", '{"body": 1}'])
def test_what_is_not_a_message_is_refused(entry: str) -> None:
    with pytest.raises(MalformedMessage):
        checked_task(entry)


def test_headers_that_labelmill_does_not_use_are_taken_off() -> None:
    hostile = envelope(CLASSIFY, GOOD, timelimit=["x", {}], expires="never", shadow="labelmill.sweep", stamps=7)
    headers = json.loads(checked_task(json.dumps(hostile)))["headers"]
    assert (headers["timelimit"], headers["expires"], headers["shadow"]) == ([None, None], None, None)
    assert headers["task"] == CLASSIFY


def _taken(message: dict[str, Any]) -> dict[str, Any]:
    taken = json.loads(checked_task(json.dumps(message)))
    assert isinstance(taken, dict)
    return taken


def test_what_is_shown_of_the_arguments_is_written_from_the_checked_ones() -> None:
    nested = "1" + "+1j" * 8_000
    taken = _taken(envelope(CLASSIFY, GOOD, kwargsrepr=nested, argsrepr=nested, origin="\x1b[2J", lang="\x1b"))
    assert taken["headers"]["kwargsrepr"] == "{'job_id': 'batch_0123456789ab', 'v': 1, 'chunk': 0}"
    assert taken["headers"]["argsrepr"] == "()"
    assert nested[:20] not in json.dumps(taken)
    assert "\\u001b" not in json.dumps(taken)
    assert named_job(taken["headers"]["kwargsrepr"]) == ("batch_0123456789ab", 0)


def test_nothing_of_a_message_is_kept_but_what_labelmill_uses() -> None:
    message = envelope(CLASSIFY, GOOD | {"unknown": ["x"]}, parent_id="x", root_id="y", reply_to="z")
    message["extra"] = 1
    message["properties"] |= {"reply_to": "x", "correlation_id": {"a": 1}, "priority": True, "delivery_mode": []}
    message["properties"]["delivery_info"] = {"exchange": "x", "routing_key": "unacked"}
    taken = _taken(message)
    assert set(taken) == {"body", "content-encoding", "content-type", "headers", "properties"}
    properties = taken["properties"]
    assert properties["delivery_info"] == {"exchange": "", "routing_key": "classify"}
    assert properties["correlation_id"] == taken["headers"]["id"] == taken["headers"]["root_id"]
    assert (properties.get("reply_to"), properties["delivery_mode"]) == (None, 2)
    positional, arguments, embedded = json.loads(base64.b64decode(taken["body"]))
    assert (positional, arguments) == ([], GOOD)
    assert not any(embedded.values())


def test_two_messages_never_share_a_delivery_tag() -> None:
    message = envelope(CLASSIFY, GOOD)
    tags = {_taken(message)["properties"]["delivery_tag"] for _ in range(2)}
    assert len(tags | {message["properties"]["delivery_tag"]}) == 3


@pytest.mark.parametrize(("priority", "kept"), [(0, 0), (3, 3), (6, 6), (-1, 0), (99, 0), ("x", 0), (1e300, 0)])
def test_a_priority_is_one_of_celerys(priority: Any, kept: int) -> None:
    message = envelope(CLASSIFY, GOOD)
    message["properties"]["priority"] = priority
    assert _taken(message)["properties"]["priority"] == kept


def test_a_sweep_has_no_arguments() -> None:
    taken = _taken(envelope(SWEEP, {"job_id": "x" * 1_000}))
    assert json.loads(base64.b64decode(taken["body"]))[1] == {}
    assert taken["headers"]["kwargsrepr"] == "{}"


def test_a_message_for_later_keeps_its_time_and_one_that_is_due_has_none() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    arguments = {"job_id": "train_0123456789ab"}
    assert _taken(envelope(TRAIN, arguments, eta=soon.isoformat()))["headers"]["eta"] == soon.isoformat()
    assert _taken(envelope(TRAIN, arguments, eta="2020-01-01T00:00:00+00:00"))["headers"]["eta"] is None
    assert _taken(envelope(TRAIN, arguments, eta="0001-01-01T00:00:00"))["headers"]["eta"] is None


@pytest.mark.parametrize(
    ("eta", "reason"),
    [
        ("9999-12-31T23:59:59-14:00", "cannot be read"),
        ("2200-01-01T00:00:00+00:00", "more than an hour away"),
        ("9" * 5_000, "cannot be read"),
    ],
)
def test_workers_keep_no_message_for_a_time_far_away(eta: str, reason: str) -> None:
    with pytest.raises(MalformedMessage) as refused:
        checked_task(json.dumps(envelope(CLASSIFY, GOOD, eta=eta)))
    assert reason in refused.value.reason


@pytest.mark.parametrize("number", ["", "a" * 101, "\x1b[2J", "a b", "a\n", "\u202e"])
def test_an_id_is_one_that_a_log_can_show(number: str) -> None:
    with pytest.raises(MalformedMessage, match="it has no id"):
        checked_task(json.dumps(envelope(CLASSIFY, GOOD, id=number)))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{'job_id': 'batch_01', 'v': 1, 'chunk': 7}", ("batch_01", 7)),
        ('{"job_id": "train_01"}', ("train_01", None)),
        ("1" + "+1j" * 8_000, (None, None)),
        ("[" * 100_000, (None, None)),
        ("{'job_id': '../../x'}", (None, None)),
        ({"job_id": "batch_01"}, (None, None)),
        (None, (None, None)),
    ],
)
def test_a_job_is_found_in_a_text_of_arguments_without_evaluating_it(text: Any, named: Any) -> None:
    assert named_job(text) == named


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"job_id": "batch_0123456789ab", "v": 2}, "version 2 of the contract"),
        ({"job_id": "batch_0123456789ab", "v": 0}, "version 0 of the contract"),
        ({"job_id": "../../etc/passwd"}, "job_id"),
        ({"job_id": "/etc/passwd"}, "job_id"),
        ({"job_id": "batch_0123456789ab\n"}, "job_id"),
        ({"job_id": ["batch_0123456789ab"]}, "job_id"),
        ({}, "job_id"),
    ],
)
def test_a_message_of_another_version_or_form_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode(JobMessage, arguments)


@pytest.mark.parametrize("chunk", [-1, 2**31, 10**40, "x", None])
def test_a_chunks_number_is_one_that_a_table_can_hold(chunk: Any) -> None:
    with pytest.raises(InvalidInput, match="chunk"):
        decode(ChunkMessage, GOOD | {"chunk": chunk})
