"""A real worker and what somebody with access to Redis could write there: nothing runs, all is kept."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from crafted import body_of, envelope
from forked_workers import ForkedCelery
from hostile import events, fuzzed, publications, task_messages
from strict_mistral import KEY, StrictMistral, label_of

from labelmill.client import Client
from labelmill.contracts.messages import CLASSIFY, EVALUATE, MAX_MESSAGE_BYTES, PREPARE, TRAIN
from labelmill.core.settings import Settings
from labelmill.doctor.fleet import ask_workers
from labelmill.services.dead_letters import DeadLettersRequest, list_dead_letters
from labelmill_ops.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.acceptance


class _Shell:
    """Unpickled, it runs a command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mistral() -> Iterator[StrictMistral]:
    with StrictMistral() as server:
        yield server


@pytest.fixture
def worker(tmp_path: Path, broker: EmbeddedRedis, database_url: str, mistral: StrictMistral) -> Iterator[ForkedCelery]:
    environment = {
        "LABELMILL_BROKER_URL": broker.url,
        "LABELMILL_DATABASE_URL": database_url,
        "LABELMILL_MISTRAL_URL": mistral.url,
        "LABELMILL_DATA_DIR": str(tmp_path / "data"),
        "LABELMILL_SWEEP_S": "1",
        "LABELMILL_TEXTS_PER_REQUEST": "10",
        "MISTRAL_API_KEY": KEY,
    }
    command = ["-A", "labelmill_worker.app", "worker", "-Q", "prepare,train,classify", "-c", "2"]
    process = ForkedCelery(command, os.environ | environment, tmp_path / "worker.log", tmp_path)
    yield process
    process.terminate()
    assert process.wait(20) == 0


def _until(condition: Callable[[], Any], what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)
    return found


def test_hostile_messages_run_nothing_read_nothing_and_are_kept_as_dead_letters(
    tmp_path: Path, broker: EmbeddedRedis, database_url: str, worker: ForkedCelery
) -> None:
    sign = tmp_path / "it-ran"
    shell = pickle.dumps(_Shell(f"touch {sign}"))
    yaml = f"!!python/object/apply:os.system ['touch {sign}']".encode()
    good = envelope(CLASSIFY, {"job_id": "batch_0123456789ab", "chunk": 0})
    crafted: dict[str, tuple[str, Any]] = {
        "pickle": ("classify", good | {"content-type": "application/x-python-serialize", "body": body_of(shell)}),
        "pickle that says it is JSON": ("classify", good | {"body": body_of(shell)}),
        "yaml": ("classify", good | {"content-type": "application/x-yaml", "body": body_of(yaml)}),
        "an unknown task": ("train", envelope("os.system", {"command": f"touch {sign}"})),
        "a task of Celery's": ("classify", envelope("celery.map", {"task": "x", "it": [1]})),
        "a path as an id": ("prepare", envelope(PREPARE, {"job_id": "../../../etc/passwd"})),
        "no such job": ("prepare", envelope(PREPARE, {"job_id": "prep_0123456789ab"})),
        "no such batch": ("classify", good),
        "no such evaluation": ("classify", envelope(EVALUATE, {"job_id": "eval_0123456789ab"})),
        "no such model": ("train", envelope(TRAIN, {"job_id": "model_" + "f" * 40})),
        "an older version": ("train", envelope(TRAIN, {"job_id": "train_0123456789ab", "v": 0})),
        "a key in the arguments": ("train", envelope(TRAIN, {"job_id": f"Bearer {KEY}"})),
        "giant": ("classify", envelope(CLASSIFY, {"job_id": "x" * (2 << 20)})),
        "nested": ("classify", good | {"body": body_of(b'{"a":' * 8_000)}),
        "callbacks": ("classify", good | {"body": body_of(json.dumps([[], {}, {"chain": [good]}]).encode())}),
        "compressed": ("classify", good | {"headers": good["headers"] | {"compression": "application/x-gzip"}}),
        "an odd encoding of the body": ("classify", good | {"properties": good["properties"] | {"body_encoding": "x"}}),
        "an odd time": ("classify", envelope(CLASSIFY, {}, eta={"a": 1})),
    }
    raw = ["not json", "[]", "null", "[" * 60_000, b"\x80\x04\xff"]
    client = redis.Redis.from_url(broker.url)
    for queue, message in crafted.values():
        client.lpush(queue, json.dumps(message))
    for entry in raw:
        client.lpush("prepare\x06\x163", entry)

    def letters() -> list[dict[str, Any]]:
        return list_dead_letters(reader.context, DeadLettersRequest(1000))

    reader = Client(Settings(broker_url=broker.url, database_url=database_url))
    expected = len(crafted) + len(raw)
    _until(lambda: len(letters()) >= expected, lambda: (letters(), (tmp_path / "worker.log").read_text()[-3000:]))
    found = letters()
    assert len(found) == expected
    assert all(letter["reason"] and len(letter["excerpt"]) <= 500 for letter in found)
    assert {letter["queue"] for letter in found} == {"prepare", "train", "classify"}
    assert any(letter["task"] == "os.system" and letter["reason"] == "no such task" for letter in found)
    assert any(f"the {MAX_MESSAGE_BYTES} that" in letter["reason"] for letter in found)
    assert sum("no such job" in letter["reason"] for letter in found) == 4
    assert any("version 0" in letter["reason"] for letter in found)
    assert worker.poll() is None
    log = (tmp_path / "worker.log").read_text()
    assert "Traceback" not in log
    assert log.count("message dropped") == expected
    assert KEY not in log + json.dumps(found)
    assert not sign.exists()
    assert sum(client.llen(name) for name in ("prepare", "train", "classify")) == 0
    client.close()
    reader.close()


_TOPIC = {"command": "/0.celery.pidbox", "event": "/0.celeryev/worker.heartbeat"}
_SEED, _FUZZED = 20261127, 400
_TEXTS = [f"text {'x' * (number % 4)} {number:05d}" for number in range(3_000)]


def _peak_mb(process: ForkedCelery) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_a_batch_ends_as_if_nothing_was_there_beside_hostile_messages_of_every_kind(
    tmp_path: Path, broker: EmbeddedRedis, database_url: str, worker: ForkedCelery, mistral: StrictMistral
) -> None:
    mistral.per_second = 40  # the batch takes as long as the messages do
    settings = Settings(broker_url=broker.url, database_url=database_url)
    user = Client(settings)
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in _TEXTS))
    with redis.Redis.from_url(broker.url) as client:
        _until(lambda: ask_workers(settings, 1), lambda: (tmp_path / "worker.log").read_text()[-3000:])
        before_mb = _peak_mb(worker)
        batch = user.classify(str(source), "ft:classifier:stand-in")
        _until(lambda: mistral.requests > 5, batch.status)
        hostile = [("task", one) for one in task_messages()]
        hostile += [("command", one) for one in publications()] + [("event", one) for one in events()]
        for kind, message in [*hostile, *fuzzed(_SEED, _FUZZED)]:
            entry = json.dumps(message)
            if kind == "task":
                client.lpush("classify", entry)
            else:
                client.publish(_TOPIC[kind], entry)
        for raw in (b"\xff\x00", b"[" * 60_000, b"{", b"NaN", b"0" * 60_000, b"x" * 1_000_000):
            client.lpush("train", raw)
            for topic in _TOPIC.values():
                client.publish(topic, raw)
            client.hset("unacked", f"x{len(raw)}", raw)
            client.zadd("unacked_index", {f"x{len(raw)}": 1.0})
        client.sadd("_kombu.binding.reply.celery.pidbox", b"malformed")
        document = batch.wait(90)
        # remote control still works, and each worker answers it
        (answer,) = _until(
            lambda: ask_workers(settings, 1), lambda: (tmp_path / "worker.log").read_text()[-3000:]
        ).values()
        queues = ("prepare", "train", "classify")
        _until(
            lambda: not sum(client.llen(name) for name in queues), lambda: (tmp_path / "worker.log").read_text()[-3000:]
        )
        _until(lambda: not client.hlen("unacked"), lambda: client.hgetall("unacked"))
    assert worker.poll() is None
    assert (document["state"], document["rows"]["labelled"]) == ("completed", len(_TEXTS))
    assert [row["predictions"]["intent"]["label"] for row in batch.results()] == [label_of(text) for text in _TEXTS]
    assert set(mistral.billed.values()) == {1}, "nothing was asked twice"
    assert set(answer["queues"]) == set(queues)
    log = (tmp_path / "worker.log").read_text()
    # a command that is taken may have arguments that are wrong for it: Celery says so
    faults = [line for line in log.splitlines() if "Traceback" in line and "pidbox command error" not in line]
    assert faults == []
    assert "could not be logged" not in log
    assert "\x1b" not in log
    assert _peak_mb(worker) - before_mb < 150
    user.close()
