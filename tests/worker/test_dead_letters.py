"""Messages that are dropped: a row each, the newest thousand, no secret, and no harm when the database is away."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from crafted import body_of, envelope
from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from labelmill.contracts.database import connect, reading, upgrade
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.messages import CLASSIFY, MAX_MESSAGE_BYTES, ChunkMessage, JobMessage, decode
from labelmill.contracts.settings import Settings
from labelmill.contracts.tables import KEPT_DEAD_LETTERS, DeadLetterRow
from labelmill.dead_letters import list_dead_letters
from labelmill_worker.dead_letters import MAX_EXCERPT, DeadLetters
from labelmill_worker.envelope import NoMessageError, open_envelope

GOOD = {"job_id": "batch_0123456789ab", "chunk": 0, "v": 1}


def _drop(letters: DeadLetters, reason: str, excerpt: str = "") -> None:
    letters.drop(reason, excerpt, queue_name="classify", task=CLASSIFY, message_id="m")


def test_the_newest_thousand_are_kept(engine: Engine) -> None:
    letters = DeadLetters(Settings(), open_engine=lambda: engine)
    for start in range(0, KEPT_DEAD_LETTERS + 300, 100):
        for number in range(start, start + 100):
            _drop(letters, f"number {number}")
        assert letters.flush(20)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(DeadLetterRow)) == KEPT_DEAD_LETTERS
        assert list_dead_letters(connection, 1)[0]["reason"] == f"number {KEPT_DEAD_LETTERS + 299}"


def test_what_is_kept_is_short_and_holds_no_secret(engine: Engine) -> None:
    settings = Settings(
        mistral_api_key="the-mistral-key", broker_url="redis://:broker-pass@h:1/0",  # type: ignore[arg-type]
        database_url="postgresql://u:p%40ssword@h/d",
    )  # fmt: skip
    letters = DeadLetters(settings, open_engine=lambda: engine)
    secrets = ("the-mistral-key", "broker-pass", "p@ssword", "p%40ssword", "abcdef123456")
    # one stands across the place where the excerpt is cut
    _drop(
        letters,
        "why",
        "\x00\ud800 p@ssword broker-pass p%40ssword Bearer abcdef123456 " + "x" * 420 + "the-mistral-key",
    )
    assert letters.flush(20)
    with reading(engine) as connection:
        (letter,) = list_dead_letters(connection, 10)
    assert len(letter["excerpt"]) <= MAX_EXCERPT
    assert not any(secret in letter["excerpt"] for secret in secrets)
    assert "the-m" not in letter["excerpt"]
    assert (letter["queue"], letter["task"], letter["message_id"]) == ("classify", CLASSIFY, "m")


def test_a_database_that_is_away_neither_raises_nor_waits() -> None:
    letters = DeadLetters(Settings(database_url="postgresql://u:p@127.0.0.1:1/none"))
    started = time.monotonic()
    for number in range(3000):
        _drop(letters, f"number {number}")
    assert time.monotonic() - started < 5
    assert not letters.flush(0.1)


def test_letters_wait_for_a_database_that_is_not_ready(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmill_worker.dead_letters._PAUSE_S", 0.05)
    engine = connect(empty_database_url)
    letters = DeadLetters(Settings(), open_engine=lambda: engine)
    _drop(letters, "kept")
    assert not letters.flush(0.3)
    upgrade(engine)
    assert letters.flush(20)
    with reading(engine) as connection:
        assert [letter["reason"] for letter in list_dead_letters(connection, 10)] == ["kept"]
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"content-type": "application/x-python-serialize"}, "not application/json"),
        ({"content-type": "application/x-yaml"}, "not application/json"),
        ({"content-encoding": "binary"}, "not application/json"),
        ({"body": body_of(b"[" * 40_000)}, "cannot be read"),
        ({"body": body_of(b"not json")}, "cannot be read"),
        ({"body": "%%%"}, "base64"),
        ({"body": 7}, "no message"),
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
        ({"properties": {}}, "delivery tag"),
        ({"properties": []}, "no message"),
    ],
)
def test_what_labelmill_never_sends_is_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoMessageError) as refused:
        open_envelope(json.dumps(envelope(CLASSIFY, GOOD) | change))
    assert reason in refused.value.reason


@pytest.mark.parametrize("entry", ["", "null", "[]", "7", "{}", "[" * 60_000, "\x00", '{"body": 1}'])
def test_what_is_no_message_is_refused(entry: str) -> None:
    with pytest.raises(NoMessageError):
        open_envelope(entry)


def test_headers_that_labelmill_does_not_use_are_taken_off() -> None:
    hostile = envelope(CLASSIFY, GOOD, timelimit=["x", {}], expires="never", shadow="labelmill.sweep", stamps=7)
    headers = open_envelope(json.dumps(hostile))["headers"]
    assert (headers["timelimit"], headers["expires"], headers["shadow"]) == ([None, None], None, None)
    assert headers["task"] == CLASSIFY


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
