"""A Redis that answers and takes no messages counts as one that is down, and is named by `doctor`."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.ids import Kind
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.core.database import connect
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import load_settings
from labelmill.doctor.broker import check_broker
from labelmill.doctor.checks import Status
from labelmill.services.context import ServiceContext
from labelmill.services.submissions.accepted import Accepted, start
from labelmill_ops.embedded_redis import EmbeddedRedis

_HARMLESS = {"HELLO", "CLIENT", "SELECT", "AUTH", "TIME"}


class _Refusing(socketserver.StreamRequestHandler):
    """Answers what is no work, and refuses the rest."""

    server: _Server

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = []
            for _ in range(int(header[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2].decode(errors="replace").upper())
            if words[0] == "HELLO":
                self.wfile.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
            elif words[0] == "TIME":
                self.wfile.write(b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n")
            elif words[0] == "PING" and not self.server.refusal.startswith("LOADING"):
                self.wfile.write(b"+PONG\r\n")
            else:
                self.wfile.write(b"+OK\r\n" if words[0] in _HARMLESS else f"-{self.server.refusal}\r\n".encode())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def __init__(self, refusal: str) -> None:
        self.refusal = refusal
        super().__init__(("127.0.0.1", 0), _Refusing)


@contextmanager
def _refusing(refusal: str) -> Iterator[str]:
    server = _Server(refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    server.server_close()


def _assert_named(url: str, word: str) -> None:
    sender = MessageSender.connect(load_settings(broker_url=url))
    with pytest.raises(BrokerUnavailable) as raised:
        sender.send(PREPARE, [JobMessage(job_id="prep_0123456789abcdef")])
    assert word in raised.value.message
    accepted = Accepted("prep_0123456789abcdef", Kind.DATASET, "queued")
    told = start(ServiceContext(connect("sqlite://"), sender), accepted)
    assert [warning.message for warning in told.warnings] == [
        f"{raised.value.message}: the job is accepted and starts when Redis is back"
    ]
    (check,) = check_broker(url).checks
    assert (check.name, check.status) == ("broker", Status.FAILED)
    assert word in check.summary
    assert check.remedy


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis whose configuration a test may change."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def test_a_replica(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.replicaof("127.0.0.1", "1")
        _assert_named(own_redis.url, "read-only replica (READONLY)")
        client.replicaof("NO", "ONE")


def test_a_full_one(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", 1)
        _assert_named(own_redis.url, "memory is full (OOM)")
        client.config_set("maxmemory", 0)


def test_one_that_wants_a_password_or_another_one(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "right")
        _assert_named(own_redis.url, "refuses the password or the user")
        _assert_named(own_redis.url.replace("//", "//:wrong-one@"), "refuses the password or the user")
        client.config_set("requirepass", "")


def test_one_whose_user_may_not(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.acl_setuser("looker", enabled=True, passwords=["+pass"], keys=["*"], channels=["*"], commands=["+@read"])
        _assert_named(own_redis.url.replace("//", "//looker:pass@"), "NOPERM")
        client.acl_setuser(
            "quiet", enabled=True, passwords=["+pass"], keys=["*"], channels=["*"], commands=["+@all", "-info"]
        )
        look = check_broker(own_redis.url.replace("//", "//quiet:pass@"))
        assert (look.is_up, look.checks[0].status) == (True, Status.WARNING)
        client.acl_deluser("looker", "quiet")


@pytest.mark.parametrize(
    ("refusal", "word"),
    [
        ("MISCONF Valkey is configured to save RDB snapshots, but it's unable to persist to disk", "MISCONF"),
        ("LOADING Redis is loading the dataset in memory", "LOADING"),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS"),
    ],
)
def test_one_that_cannot_write_now(refusal: str, word: str) -> None:
    with _refusing(refusal) as url:
        _assert_named(url, word)


def test_a_submission_to_a_replica_is_accepted(own_redis: EmbeddedRedis, tmp_path: Path, database_url: str) -> None:
    from labelmill.client import Client  # noqa: PLC0415 - only here

    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "a"}\n')
    with redis.Redis.from_url(own_redis.url) as admin:
        admin.replicaof("127.0.0.1", "1")
        client = Client(load_settings(broker_url=own_redis.url, database_url=database_url))
        batch = client.classify(str(source), "ft:classifier:x")
        assert batch.status()["state"] == "queued"
        assert "READONLY" in batch.warnings[0]
        client.close()
        admin.replicaof("NO", "ONE")
