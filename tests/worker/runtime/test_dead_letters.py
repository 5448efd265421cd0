"""Messages that are dropped: a row each, the newest thousand, no secret, and no harm when the database is away."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.contracts.messages import CLASSIFY
from labelmill.core.database import connect, reading, upgrade
from labelmill.core.database.tables import KEPT_DEAD_LETTERS, DeadLetterRow
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services.context import ServiceContext
from labelmill.services.dead_letters import DeadLettersRequest, list_dead_letters
from labelmill_worker.runtime.dead_letters import MAX_EXCERPT, DeadLetters


def _drop(letters: DeadLetters, reason: str, excerpt: str = "") -> None:
    letters.drop(reason, excerpt, queue_name="classify", task=CLASSIFY, message_id="m")


def test_the_newest_thousand_are_kept(engine: Engine) -> None:
    letters = DeadLetters(Settings(), open_engine=lambda: engine)
    for start in range(0, KEPT_DEAD_LETTERS + 300, 100):
        for number in range(start, start + 100):
            _drop(letters, f"number {number}")
        assert letters.flush(60)
    context = ServiceContext(engine, MessageSender.connect(Settings()))
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(DeadLetterRow)) == KEPT_DEAD_LETTERS
    assert list_dead_letters(context, DeadLettersRequest(1))[0]["reason"] == f"number {KEPT_DEAD_LETTERS + 299}"


def test_what_is_kept_is_short_and_holds_no_secret(engine: Engine) -> None:
    settings = Settings(
        mistral_api_key="the-mistral-key",
        broker_url="redis://:broker-pass@h:1/0",  # type: ignore[arg-type]
        database_url="postgresql://u:p%40ssword@h/d",
    )
    letters = DeadLetters(settings, open_engine=lambda: engine)
    secrets = ("the-mistral-key", "broker-pass", "p@ssword", "p%40ssword", "abcdef123456")
    # one stands across the place where the excerpt is cut
    _drop(
        letters,
        "why",
        "\x00\ud800 p@ssword broker-pass p%40ssword Bearer abcdef123456 " + "x" * 420 + "the-mistral-key",
    )
    assert letters.flush(60)
    (letter,) = list_dead_letters(ServiceContext(engine, MessageSender.connect(settings)), DeadLettersRequest(10))
    assert len(letter["excerpt"]) <= MAX_EXCERPT
    assert not any(secret in letter["excerpt"] for secret in secrets)
    assert "the-m" not in letter["excerpt"]
    assert (letter["queue"], letter["task"], letter["message_id"]) == ("classify", CLASSIFY, "m")


def test_a_database_that_is_away_neither_raises_nor_waits() -> None:
    asked, gives_up = threading.Event(), threading.Event()

    def connect_for_long() -> Engine:
        asked.set()
        assert gives_up.wait(60), "who drops a message waits for the database"
        raise DatabaseUnavailable("the database is away")

    letters = DeadLetters(Settings(), open_engine=connect_for_long)
    for number in range(3000):
        _drop(letters, f"number {number}")
    assert asked.wait(60)
    assert not letters.flush(0.1)
    gives_up.set()


def test_letters_wait_for_a_database_that_is_not_ready(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmill_worker.runtime.dead_letters._PAUSE_S", 0.05)
    engine = connect(empty_database_url)
    letters = DeadLetters(Settings(), open_engine=lambda: engine)
    _drop(letters, "kept")
    assert not letters.flush(0.3)
    upgrade(engine)
    assert letters.flush(60)
    with ServiceContext(engine, MessageSender.connect(Settings())) as context:
        assert [letter["reason"] for letter in list_dead_letters(context, DeadLettersRequest(10))] == ["kept"]
