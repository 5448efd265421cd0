"""kombu on the checking transport, against a real Redis: malformed messages are passed over, the others arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from crafted import command, event, message_of
from kombu import Connection, Exchange, Queue
from kombu.pidbox import Mailbox

from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.core.queue.sender import MessageSender
from labelmill.core.queue.wire import frame
from labelmill.core.queue.wire.transport import CHECKING_TRANSPORT, CheckingTransport
from labelmill.core.settings import Settings

_QUEUE = "classify\x06\x163"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The reasons and queues of what was dropped."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(frame, "_drop", lambda refusal, queue: found.append((refusal.reason, queue)))
    return found


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def connection(redis_url: str, client: redis.Redis) -> Iterator[Connection]:
    with Connection(redis_url, transport=CHECKING_TRANSPORT) as connection:
        assert isinstance(connection.transport, CheckingTransport)
        yield connection


def _drain(connection: Connection, seconds: float = 0.3) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection.drain_events(timeout=0.1)
        except TimeoutError:
            continue


def test_a_message_that_comes_while_the_worker_shuts_down_goes_back(
    redis_url: str, client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    message = ChunkMessage(job_id="batch_01a20e5d626fd9949723e7d3", chunk=0)
    channel = connection.channel()
    Queue("classify", channel=channel).consume(callback=lambda _: None)
    MessageSender.connect(Settings(broker_url=redis_url)).send(CLASSIFY, [message])
    connection.transport._callbacks.clear()  # type: ignore[attr-defined]  # nobody consumes any more
    connection.drain_events(timeout=5)
    assert refused == []
    assert (client.llen(_QUEUE), client.hlen("unacked")) == (1, 0)


def test_a_reply_that_comes_when_nobody_waits_for_it_goes_back(
    client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    name = "1.reply.celery.pidbox"
    queue = Queue(name, channel=connection.channel())
    queue.consume(callback=lambda _: None)
    client.lpush(name, json.dumps(message_of({"worker1@here": {"ok": "pong"}}, {"ticket": "1"})))
    connection.transport._callbacks.clear()  # type: ignore[attr-defined]  # whoever asked has given up
    connection.drain_events(timeout=5)
    assert refused == []
    assert client.llen(name) == 1


def test_malformed_messages_on_a_queue_are_dropped_and_the_next_one_arrives(
    redis_url: str, client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    arrived: list[Any] = []
    Queue("classify", channel=connection.channel()).consume(callback=arrived.append)
    for entry in ("[1, 2]", "no JSON", b"\x80\x04", "[" * 60_000, "null"):
        client.lpush("classify", entry)
    MessageSender.connect(Settings(broker_url=redis_url)).send(
        CLASSIFY, [ChunkMessage(job_id="batch_01234567", chunk=4)]
    )
    deadline = time.monotonic() + 60
    while not arrived:
        assert time.monotonic() < deadline
        _drain(connection, 0.1)
    assert arrived[0].headers["kwargsrepr"] == "{'job_id': 'batch_01234567', 'v': 1, 'chunk': 4}"
    invalid = ("it is not valid JSON", "classify")
    assert sorted(refused) == sorted([("it is not a valid message", "classify")] * 2 + [invalid] * 3)


def test_what_is_not_a_delivered_message_does_not_keep_others_from_being_put_back(
    client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    channel = connection.channel()
    held = json.dumps([message_of([[], {}, {}], {"task": CLASSIFY, "id": "1"}), "", "classify"])
    for tag, entry in (("a", "nothing"), ("b", "[1]"), ("c", "[" * 50_000), ("d", held), ("e", "[7, 8, 9]")):
        client.hset("unacked", tag, entry)
        client.zadd("unacked_index", {tag: 1.0})
    channel.qos.restore_visible(interval=1)
    assert (client.hlen("unacked"), client.zcard("unacked_index"), client.llen("classify")) == (0, 0, 1)
    assert {queue for _, queue in refused} == {"unacked"}


def test_malformed_publications_are_dropped_and_the_next_command_arrives(
    client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    called: list[dict[str, Any]] = []
    node = Mailbox("celery", type="fanout", connection=connection).Node("celery@here", state=None)
    node.channel = connection.channel()
    node.handlers = {"ping": lambda state, **arguments: called.append(arguments)}
    node.listen()
    topic = "/0.celery.pidbox"
    good = command("ping")
    wrong: list[Any] = [
        good | {"headers": "text"},
        good | {"headers": [1]},
        message_of([1], {}),
        message_of(7, {}),
        good | {"headers": {"compression": "application/x-gzip"}},
        good | {"content-type": "application/x-yaml"},
        command("ping", pattern="(a+)+$", matcher="pcre"),
        command("ping", destination=7),
        command("ping", arguments=[1]),
        command("election"),
        command("hello"),
        command("ping", reply_to=[1]),
        command("ping", reply_to={"exchange": "", "routing_key": "classify"}, ticket="1"),
        {},
        [],
        None,
        7,
        "[" * 10,
        good | {"properties": None},
        command("ping", arguments={"x": "y" * 70_000}),
    ]
    _drain(connection, 0.2)
    for one in wrong:
        assert client.publish(topic, json.dumps(one)) == 1
    for raw in (b"\xff", b"[" * 60_000, b"{", b"0", b"x" * 100_000):
        client.publish(topic, raw)
    client.publish(topic, json.dumps(command("ping", arguments={"number": 4711}) | {"headers": {"clock": 10**17}}))
    deadline = time.monotonic() + 60
    while not called:
        assert time.monotonic() < deadline, refused
        _drain(connection, 0.1)
    assert called == [{"number": 4711}]
    assert len(refused) == len(wrong) + 5
    assert {queue for _, queue in refused} == {"celery.pidbox"}
    assert node.mailbox.clock.value < 100, "a clock of a stranger's is not taken over"


def test_malformed_events_are_dropped_and_the_next_one_arrives(
    client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    arrived: list[Any] = []
    channel = connection.channel()
    exchange = Exchange("celeryev", type="fanout")
    queue = Queue("celeryev.x", exchange=exchange, routing_key="#", channel=channel, auto_delete=True)
    queue.declare()
    queue.consume(callback=lambda message: arrived.append(message.payload), no_ack=True)
    _drain(connection, 0.2)
    wrong = [event("worker-heartbeat", hostname=["x"]), event("worker-heartbeat") | {"headers": 7}, message_of([7], {})]
    for one in wrong:
        client.publish("/0.celeryev/worker.heartbeat", json.dumps(one))
    client.publish(b"/0.celeryev/\xff", json.dumps(event("worker-heartbeat", as_dict=1)))
    deadline = time.monotonic() + 60
    while not arrived:
        assert time.monotonic() < deadline, refused
        _drain(connection, 0.1)
    ((heard,),) = arrived
    assert "as_dict" not in heard
    assert (heard["type"], heard["hostname"]) == ("worker-heartbeat", "celery@here")
    assert len(refused) == len(wrong)


def test_a_malformed_binding_does_not_keep_replies_from_their_queue(
    client: redis.Redis, connection: Connection
) -> None:
    for wrong in (b"", b"x", b"\xff\xfe", b"a\x06\x16b"):
        client.sadd("_kombu.binding.reply.celery.pidbox", wrong)
    client.sadd("_kombu.binding.reply.celery.pidbox", "key\x06\x16\x06\x16waiting")
    channel = connection.channel()
    Exchange("reply.celery.pidbox", type="direct", channel=channel).declare()
    assert channel._lookup("reply.celery.pidbox", "key") == {"waiting"}


def test_malformed_replies_are_dropped_and_the_next_one_arrives(
    client: redis.Redis, connection: Connection, refused: list[tuple[str, str]]
) -> None:
    arrived: list[Any] = []
    queue = Queue("1.reply.celery.pidbox", channel=connection.channel())
    queue.consume(callback=lambda message: arrived.append(message.payload), no_ack=True)
    good = message_of({"celery@here": {"ok": "pong"}}, {"ticket": "1-2-3", "clock": 7})
    wrong: list[Any] = [
        good | {"headers": {"ticket": ["1"]}},
        good | {"headers": "1"},
        message_of([1], {"ticket": "1"}),
        message_of({"a": {"__type__": "decimal", "__value__": "1e999999"}}, {"ticket": "1"}),
        message_of({"\x1b[2J": 1}, {"ticket": "1"}),
        7,
    ]
    for one in wrong:
        client.lpush(queue.name, json.dumps(one))
    client.lpush(queue.name, json.dumps(good))
    deadline = time.monotonic() + 60
    while not arrived:
        assert time.monotonic() < deadline, refused
        _drain(connection, 0.1)
    assert arrived == [{"celery@here": {"ok": "pong"}}]
    assert len(refused) == len(wrong)
