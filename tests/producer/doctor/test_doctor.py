"""`labelmill doctor`: what is wrong is named with its remedy, and nothing keeps it from ending."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import socketserver
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from sqlalchemy import delete, insert, update
from sqlalchemy.engine import Engine

from labelmill import __version__
from labelmill.cli import main
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, DeadLetterRow, LockRow, ModelRow, TrainingRow, WorkerRow
from labelmill.doctor.checks import Status
from labelmill.doctor.fleet import checks_of
from labelmill.doctor.fleet_records import check_worker_records
from labelmill.doctor.work import check_work

_NOBODY = "redis://:broker-secret@127.0.0.1:1/0"


class Seen:
    def __init__(self, code: int, out: str, err: str, took_s: float) -> None:
        self.code, self.out, self.err, self.took_s = code, out, err, took_s
        self.document: dict[str, Any] = json.loads(out)
        self.checks = {check["name"]: check for check in self.document["checks"]}


Doctor = Callable[..., Seen]


@pytest.fixture
def doctor(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    shutil.copy(sqlite_template, "jobs.db")

    def run(**environment: str) -> Seen:
        given = {"LABELMILL_DATABASE_URL": "sqlite:///jobs.db", "LABELMILL_BROKER_URL": _NOBODY} | environment
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["labelmill", "doctor", "--json"])
            started = time.monotonic()
            with pytest.raises(SystemExit) as ended:
                main.run()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Seen(ended.value.code, out, err, time.monotonic() - started)

    return run


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_dead_broker_is_named_and_what_is_behind_it_is_unknown(doctor: Doctor) -> None:
    seen = doctor()
    assert (seen.code, seen.document["ok"]) == (1, False)
    failed = {name for name, check in seen.checks.items() if check["status"] == "failed"}
    assert failed == {"broker"}
    unknown = {name for name, check in seen.checks.items() if check["status"] == "unknown"}
    assert unknown == {"workers", "queues", "mistral"}
    assert all("Redis" in seen.checks[name]["remedy"] for name in unknown)
    assert all(check["remedy"] for check in seen.checks.values() if check["status"] != "ok")
    assert all(set(check) == {"name", "status", "summary", "remedy"} for check in seen.document["checks"])
    assert "asking Redis" in seen.err
    assert "broker-secret" not in seen.out + seen.err


def test_a_dead_database_exits_with_7(doctor: Doctor) -> None:
    seen = doctor(LABELMILL_DATABASE_URL="postgresql://mill:database-secret@127.0.0.1:1/mill")
    assert seen.code == 7
    assert seen.checks["database"]["status"] == "failed"
    assert "database-secret" not in seen.out + seen.err


def test_servers_that_take_connections_and_say_nothing_do_not_hang_it(doctor: Doctor, silent_port: int) -> None:
    seen = doctor(
        LABELMILL_BROKER_URL=f"redis://127.0.0.1:{silent_port}/0",
        LABELMILL_DATABASE_URL=f"postgresql://mill@127.0.0.1:{silent_port}/mill",
    )
    assert seen.code == 7
    assert seen.checks["broker"]["status"] == seen.checks["database"]["status"] == "failed"
    assert seen.checks["clocks"]["status"] == "unknown"
    assert seen.took_s < 40


def test_missing_tables_name_their_remedy(doctor: Doctor) -> None:
    seen = doctor(LABELMILL_DATABASE_URL="sqlite:///another.db")
    assert seen.code == 7
    assert "labelmill db upgrade" in seen.checks["database tables"]["remedy"]


def test_a_data_folder_that_cannot_be_written_to_fails(doctor: Doctor) -> None:
    Path("taken").write_text("a file")
    seen = doctor(LABELMILL_DATA_DIR="taken")
    assert seen.checks["disk"]["status"] == "failed"


def test_a_redis_that_may_throw_messages_away_is_a_warning(doctor: Doctor, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.lpush("classify\x06\x163", "a", "b")
        client.lpush("train", "c")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        try:
            seen = doctor(LABELMILL_BROKER_URL=redis_url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
            client.flushall()
    assert seen.checks["broker"]["status"] == "ok"
    assert "allkeys-lru" in seen.checks["broker memory"]["summary"]
    assert seen.checks["broker memory"]["status"] == seen.checks["broker persistence"]["status"] == "warning"
    assert "prepare 0, train 1, classify 2" in seen.checks["queues"]["summary"]
    assert (seen.checks["workers"]["status"], seen.checks["queues"]["status"]) == ("failed", "failed")
    assert seen.checks["mistral"]["status"] == "unknown"  # nobody asked it
    assert seen.code == 1


def test_what_is_stuck_in_the_database_is_found(engine: Engine) -> None:
    assert {check.name: check.status for check in check_work(engine)} == {
        "recovery": Status.WARNING,
        "leases": Status.OK,
        "jobs": Status.OK,
        "dead letters": Status.OK,
        "models": Status.OK,
    }
    with writing(engine) as connection:
        connection.execute(insert(LockRow).values(name="sweep", lease_until=db_now() + 1))
        model = connection.execute(
            insert(ModelRow).values(name="m", version=1, method="factory").returning(ModelRow.no)
        ).scalar_one()
        batch = connection.execute(
            insert(BatchRow)
            .values(id="batch_00000001", state="running", model_no=model, model_ref="m@1", options={})
            .returning(BatchRow.no)
        ).scalar_one()
        connection.execute(
            insert(ChunkRow).values(
                batch_no=batch,
                number=0,
                state="claimed",
                first_row=0,
                rows=1,
                texts=1,
                lease_token="t",
                lease_until=db_now() - 300,
            )
        )
        connection.execute(
            insert(TrainingRow).values(
                id="train_00000001",
                state="running",
                name="m",
                method="factory",
                dataset_id="prep_00000001",
                options={},
                next_look_at=db_now() - 900,
            )
        )
        connection.execute(insert(DeadLetterRow).values(reason="r", excerpt="e"))
    found = {check.name: check for check in check_work(engine)}
    assert found["recovery"].status is Status.OK
    assert "1 of chunks, 0 of jobs" in found["leases"].summary
    assert "train_00000001" in found["jobs"].summary
    assert "1 messages" in found["dead letters"].summary
    with writing(engine) as connection:
        connection.execute(update(LockRow).values(lease_until=db_now() - 600))
        connection.execute(update(ChunkRow).values(state="pending", lease_until=None, sent_at=db_now() - 600))
        connection.execute(update(TrainingRow).values(state="failed"))
    found = {check.name: check for check in check_work(engine)}
    assert (found["recovery"].status, found["leases"].status) == (Status.WARNING, Status.OK)
    assert "batch_00000001" in found["jobs"].summary


def _answer(**changes: Any) -> dict[str, Any]:
    good = {
        "version": __version__,
        "queues": ["prepare", "train", "classify"],
        "clock": 1000.0,
        "disk": None,
        "mistral": {"status": "ok", "summary": "the key is accepted", "remedy": ""},
    }
    return good | changes


def test_workers_that_differ_are_named() -> None:
    answers = {
        "w1@a": _answer(),
        "w2@b": _answer(
            version="0.0.9",
            clock=900.0,
            disk="/data cannot be written to",
            mistral={"status": "failed", "summary": "refused", "remedy": "r", "refused": True},
        ),
    }
    found = {check.name: check for check in checks_of(answers, {"classify": 3}, 1000.0)}
    assert "0.0.9" in found["workers"].summary
    assert found["workers' clocks"].status is Status.WARNING
    assert found["workers' data folder"].summary.startswith("w2@b")
    assert (found["mistral"].status, found["mistral"].exit_code) == (Status.FAILED, 5)
    assert found["queues"].status is Status.OK


def test_a_queue_without_a_consumer_is_worse_when_messages_wait() -> None:
    answers = {"w1@a": _answer(queues=["prepare", "train"])}
    idle, waits = (
        next(check for check in checks_of(answers, {"classify": count}, 1000.0) if check.name == "queues")
        for count in (0, 5)
    )
    assert (idle.status, waits.status) == (Status.WARNING, Status.FAILED)
    assert "-Q classify" in waits.remedy


class OddRedis(socketserver.ThreadingTCPServer):
    """A Redis that says of itself what it is told to."""

    daemon_threads = allow_reuse_address = True
    hello = b"%1\r\n$5\r\nproto\r\n:3\r\n"

    def __init__(self, ahead_s: float = 0.0, **info: object) -> None:
        self.ahead_s, self.info = ahead_s, {"redis_version": "7.2.4", "aof_enabled": 1, "used_memory": 1 << 20} | info
        super().__init__(("127.0.0.1", 0), _OddAnswers)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server_address[1]}/0"


class _OddAnswers(socketserver.StreamRequestHandler):
    server: OddRedis

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = []
            for _ in range(int(header[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2].decode().upper())
            self.wfile.write(self._answer(words[0]))

    def _answer(self, command: str) -> bytes:
        if command == "TIME":
            seconds = str(int(time.time() + self.server.ahead_s)).encode()
            return b"*2\r\n$%d\r\n%s\r\n$1\r\n0\r\n" % (len(seconds), seconds)
        if command == "INFO":
            text = "".join(f"{name}:{value}\r\n" for name, value in self.server.info.items()).encode()
            return b"$%d\r\n%s\r\n" % (len(text), text)
        if command == "HELLO":
            return self.server.hello
        return b":0\r\n" if command == "LLEN" else b"+OK\r\n"


@pytest.fixture
def odd_redis() -> Iterator[Callable[..., str]]:
    """Makes such servers. Returns their URL."""
    made: list[OddRedis] = []

    def make(**traits: Any) -> str:
        server = OddRedis(**traits)
        made.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.url

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


def test_a_redis_that_is_too_old_is_named(doctor: Doctor, odd_redis: Callable[..., str]) -> None:
    look = doctor(LABELMILL_BROKER_URL=odd_redis(redis_version="6.0.16")).checks["broker"]
    assert (look["status"], look["remedy"]) == ("warning", "upgrade to Redis 6.2 or newer")
    assert "6.0.16" in look["summary"]
    assert doctor(LABELMILL_BROKER_URL=odd_redis(redis_version="6.2.0")).checks["broker"]["status"] == "ok"


def test_what_is_no_redis_is_named(
    doctor: Doctor, odd_redis: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OddRedis, "hello", b"+OK\r\n")
    seen = doctor(LABELMILL_BROKER_URL=odd_redis())
    assert (seen.code, seen.checks["broker"]["status"]) == (1, "failed")
    assert "not Redis" in seen.checks["broker"]["summary"]


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"maxmemory": 10 << 20, "used_memory": 9_900_000}, "94% of 10 MB are used"),
        ({"evicted_keys": 3, "maxmemory_policy": "allkeys-lru"}, "has evicted 3 keys"),
    ],
)
def test_a_redis_that_is_nearly_full_or_threw_messages_away_is_named(
    doctor: Doctor, odd_redis: Callable[..., str], info: dict[str, object], words: str
) -> None:
    look = doctor(LABELMILL_BROKER_URL=odd_redis(**info)).checks["broker memory"]
    assert look["status"] == "warning"
    assert words in look["summary"]
    assert "Redis" in look["remedy"]


@pytest.mark.parametrize(
    ("ahead_s", "words"), [(90, "behind Redis"), (-90, "ahead of Redis"), (0, "agrees with Redis and the database")]
)
def test_clocks_that_differ_are_named(
    doctor: Doctor, odd_redis: Callable[..., str], ahead_s: float, words: str
) -> None:
    look = doctor(LABELMILL_BROKER_URL=odd_redis(ahead_s=ahead_s)).checks["clocks"]
    assert (look["status"], look["remedy"]) == (("warning", "run NTP on every machine") if ahead_s else ("ok", ""))
    assert words in look["summary"]


def test_a_databases_clock_that_differs_is_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill.doctor.database.time", SimpleNamespace(time=lambda: time.time() + 90))
    look = doctor().checks["clocks"]
    assert look["status"] == "warning"
    assert "ahead of the database" in look["summary"]


def test_a_sqlite_that_another_process_locks_is_named(doctor: Doctor) -> None:
    with contextlib.closing(sqlite3.connect("jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        seen = doctor()
        other.execute("ROLLBACK")
    assert (seen.code, seen.checks["database"]["status"]) == (7, "failed")
    assert "lsof" in seen.checks["database"]["remedy"]
    assert doctor().checks["database"]["status"] == "ok"


def test_a_sqlite_without_its_write_ahead_log_is_named(doctor: Doctor) -> None:
    with contextlib.closing(sqlite3.connect("jobs.db")) as file:
        file.execute("PRAGMA journal_mode=DELETE")
    # a file system without shared memory, such as a network share, is what this VFS behaves like
    seen = doctor(LABELMILL_DATABASE_URL="sqlite:///file:jobs.db?vfs=unix-none&uri=true")
    look = seen.checks["database"]
    assert look["status"] == "warning"
    assert "in delete mode" in look["summary"]
    assert "local disk" in look["remedy"]


@pytest.mark.postgres
def test_a_postgresql_that_is_too_old_is_named(
    doctor: Doctor, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor(LABELMILL_DATABASE_URL=postgres_url).checks["database"]["status"] == "ok"
    monkeypatch.setattr("labelmill.core.database.dialects.postgres._OLDEST_TESTED", 990000)
    look = doctor(LABELMILL_DATABASE_URL=postgres_url).checks["database"]
    assert look["status"] == "warning"
    assert "older than what is tested" in look["summary"]


@pytest.mark.parametrize(("free_mb", "status"), [(50, "failed"), (500, "warning"), (5000, "ok")])
def test_a_disk_with_little_room_is_named(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, free_mb: int, status: str
) -> None:
    usage = SimpleNamespace(free=free_mb << 20)
    monkeypatch.setattr("labelmill.doctor.disk.shutil", SimpleNamespace(disk_usage=lambda _: usage))
    look = doctor().checks["disk"]
    assert look["status"] == status
    assert look["remedy"] == ("" if status == "ok" else "make room")


def _see_worker(engine: Engine, run: str, name: str, ago_s: float) -> None:
    with writing(engine) as connection:
        connection.execute(delete(WorkerRow).where(WorkerRow.id == run))
        connection.execute(insert(WorkerRow).values(id=run, name=name, queues=",train,", seen_at=db_now() - ago_s))


def test_two_workers_of_one_name_are_named(engine: Engine) -> None:
    for run in ("a", "b"):
        _see_worker(engine, run, "celery@host", 4.0)
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.1):
            for run in ("a", "b"):
                _see_worker(engine, run, "celery@host", 0.0)

    workers = threading.Thread(target=live)
    workers.start()
    try:
        names, lost = check_worker_records(engine)
    finally:
        ended.set()
        workers.join()
    assert (names.status, lost.status) == (Status.WARNING, Status.OK)
    assert "celery@host" in names.summary
    assert "-n NAME@%h" in names.remedy


def test_a_worker_that_was_killed_and_started_again_has_its_name_to_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmill.doctor.fleet_records._RENEWED_WITHIN_S", 0.7)
    _see_worker(engine, "killed", "one@host", 20.0)
    _see_worker(engine, "new", "one@host", 1.0)
    assert [check.status for check in check_worker_records(engine)] == [Status.OK, Status.OK]


def test_a_worker_that_disappeared_is_named_for_an_hour(engine: Engine) -> None:
    _see_worker(engine, "a", "one@host", 1.0)
    _see_worker(engine, "b", "two@host", 600.0)
    _see_worker(engine, "c", "three@host", 7200.0)
    lost = check_worker_records(engine)[1]
    assert lost.status is Status.WARNING
    assert "1 worker died" in lost.summary
    assert "two@host (10 min ago)" in lost.summary
