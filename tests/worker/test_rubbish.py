"""What a worker takes for rubbish on a queue, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from kombu import Connection, Queue
from kombu.transport import redis as transport

from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.contracts.queue import MessageSender
from labelmill.contracts.settings import Settings
from labelmill_worker import rubbish

_QUEUE = "classify\x06\x163"


class Dropped:
    """In place of the table of dead letters."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def drop(self, reason: str, excerpt: str, **_: Any) -> None:
        del excerpt
        self.reasons.append(reason)


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Dropped:
    found = Dropped()
    monkeypatch.setattr(rubbish, "process_dead_letters", lambda _: found)
    monkeypatch.setattr(transport, "loads", rubbish._loads)
    monkeypatch.setattr(transport.Transport, "Channel", rubbish.RubbishProofChannel)
    return found


def test_a_message_that_comes_while_the_worker_ends_goes_back_and_is_no_rubbish(
    redis_url: str, dropped: Dropped
) -> None:
    with redis.Redis.from_url(redis_url) as client, Connection(redis_url) as connection:
        client.flushall()
        settings = Settings(broker_url=redis_url)
        message = ChunkMessage(job_id="batch_01a20e5d626fd9949723e7d3", chunk=0)
        channel = connection.channel()
        Queue(_QUEUE, channel=channel).consume(callback=lambda _: None)
        MessageSender.connect(settings).send(CLASSIFY, [message])
        connection.transport._callbacks.clear()  # type: ignore[attr-defined]  # nobody consumes any more
        connection.drain_events(timeout=5)
        assert dropped.reasons == []
        assert (client.llen(_QUEUE), client.hlen("unacked")) == (1, 0)


def test_what_is_no_message_is_dropped(redis_url: str, dropped: Dropped) -> None:
    with redis.Redis.from_url(redis_url) as client, Connection(redis_url) as connection:
        client.flushall()
        channel = connection.channel()
        Queue(_QUEUE, channel=channel).consume(callback=lambda _: None)
        client.lpush(_QUEUE, "[1, 2]", "no JSON")
        for _ in range(2):
            connection.drain_events(timeout=5)
        assert dropped.reasons == ["it is no message", "it is no JSON document"]
