"""`rediss://`: everything that opens Redis speaks TLS, checks whom it speaks to, and works as with plain text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from flower.utils.broker import Broker
from strict_mistral import KEY, StrictMistral, label_of
from tls import Certificates, FirstBytes, make_certificates, openssl_is_there, tls_in_front_of

from labelmill.client import Client
from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.queue.sender import MessageSender, asking_app
from labelmill.core.settings import Settings
from labelmill.doctor.broker import check_broker
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.ports import free_port
from labelmill_worker.app import create_app
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.limits import Limit, RateLimits
from labelmill_worker.runtime.recovery.waiting import WaitingMessages

TLS_HANDSHAKE = b"\x16"
USER, PASSWORD, PASSWORD_IN_URL = "mill", "p@ss:w/r%d;#?", "p%40ss%3Aw%2Fr%25d%3B%23%3F"
ROWS = 400


def _send(url: str) -> None:
    MessageSender.connect(Settings(broker_url=url)).send(PREPARE, [JobMessage(job_id="prep_00000000")])


def _ask_the_limit(url: str) -> None:
    async def ask() -> None:
        limiter = FleetLimiter(url, "test", RateLimits(Limit.of(10, None)))
        try:
            await limiter.of("mistral-embed").wait_for_permit(1, 5)
        finally:
            await limiter.close()

    asyncio.run(ask())


def _ask_workers(url: str) -> None:
    app = asking_app(Settings(broker_url=url))
    try:
        app.control.ping(timeout=0.5)
    finally:
        app.close()


def _connect_worker(url: str) -> None:
    with create_app(Settings(broker_url=url)).connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)


def _ask_as_flower(url: str) -> None:
    app = create_app(Settings(broker_url=url))
    broker = Broker(
        app.connection().as_uri(include_password=True),
        broker_options=app.conf.broker_transport_options,
        broker_use_ssl=app.conf.broker_use_ssl,
    )
    asyncio.run(broker.queues(["classify"]))


OPENERS: dict[str, Callable[[str], object]] = {
    "producer": _send,
    "worker": _connect_worker,
    "limiter": _ask_the_limit,
    "recovery": lambda url: WaitingMessages(url).for_chunks,
    "doctor": check_broker,
    "doctor's question to workers": _ask_workers,
    "Flower": _ask_as_flower,
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("parameters", ["", "?ssl_cert_reqs=none", "?ssl_cert_reqs=CERT_NONE"])
def test_the_first_byte_on_the_wire_begins_a_tls_handshake(opener: str, parameters: str) -> None:
    server = FirstBytes()
    try:
        with contextlib.suppress(Exception):  # nobody answers
            OPENERS[opener](f"rediss://:secret@localhost:{server.port}/0{parameters}")
        assert server.seen
        assert set(server.seen) == {TLS_HANDSHAKE}
    finally:
        server.close()


@dataclass(frozen=True)
class TlsRedis:
    """A Redis behind TLS, whose only user is `USER`, and one whose certificate is for another host."""

    port: int
    port_of_another_name: int
    certificates: Certificates
    other_ca: Path

    def url(self, *, ca: Path | None = None, port: int | None = None, more: str = "") -> str:
        host = f"{USER}:{PASSWORD_IN_URL}@localhost:{port or self.port}"
        return f"rediss://{host}/1?ssl_ca_certs={ca or self.certificates.ca}{more}"


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    if not openssl_is_there():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    ours = make_certificates(folder / "ours")
    another_name = make_certificates(folder / "another-name", "DNS:redis.example.org")
    server = EmbeddedRedis(folder / "redis")
    server.start()
    with redis.Redis.from_url(server.url) as admin:
        admin.acl_setuser(
            USER, enabled=True, passwords=[f"+{PASSWORD}"], categories=["+@all"], keys=["*"], channels=["*"]
        )
        admin.acl_setuser("default", enabled=False)
    with tls_in_front_of(server.port, ours) as port, tls_in_front_of(server.port, another_name) as other_port:
        yield TlsRedis(port, other_port, ours, another_name.ca)
    server.stop()


@pytest.mark.parametrize("opener", OPENERS)
def test_a_certificate_of_the_named_authority_is_accepted(tls_redis: TlsRedis, opener: str) -> None:
    OPENERS[opener](tls_redis.url())
    OPENERS[opener](tls_redis.url(ca=tls_redis.other_ca, more="&ssl_cert_reqs=CERT_NONE"))


@pytest.mark.parametrize("opener", [name for name in OPENERS if name != "doctor"])
@pytest.mark.parametrize("wrong", ["authority", "host name", "plain text"])
def test_a_server_that_cannot_prove_who_it_is_is_refused(tls_redis: TlsRedis, opener: str, wrong: str) -> None:
    with pytest.raises((OSError, BrokerUnavailable, redis.RedisError, _operational_error())):
        OPENERS[opener](_wrong_url(tls_redis, wrong))


@pytest.mark.parametrize(
    ("wrong", "said"), [("authority", "certificate is not accepted"), ("host name", "Hostname mismatch")]
)
def test_doctor_says_what_is_wrong_with_a_certificate(tls_redis: TlsRedis, wrong: str, said: str) -> None:
    (check,) = check_broker(_wrong_url(tls_redis, wrong)).checks
    assert said in check.summary
    assert "ssl_ca_certs" in check.remedy
    assert check_broker(tls_redis.url()).is_up


def _operational_error() -> type[Exception]:
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - where others are that Celery raises

    return OperationalError


def _wrong_url(tls_redis: TlsRedis, wrong: str) -> str:
    if wrong == "authority":
        return tls_redis.url(ca=tls_redis.other_ca)
    if wrong == "host name":
        return tls_redis.url(ca=tls_redis.other_ca, port=tls_redis.port_of_another_name)
    return tls_redis.url().replace("rediss://", "redis://").partition("?")[0]


def test_a_batch_runs_through_a_redis_that_takes_tls_and_a_named_user_alone(
    tls_redis: TlsRedis, tmp_path: Path, sqlite_template: Path
) -> None:
    (tmp_path / "jobs.db").write_bytes(sqlite_template.read_bytes())
    flower_port = free_port()
    with StrictMistral() as mistral, redis.Redis.from_url(**redis_arguments(tls_redis.url())) as admin:
        admin.flushdb()
        environment = os.environ | {
            "LABELMILL_BROKER_URL": tls_redis.url(),
            "LABELMILL_DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.db'}",
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": str(tmp_path),
            "MISTRAL_API_KEY": KEY,
            "LABELMILL_REQUESTS_PER_SECOND": "50",
            "LABELMILL_TEXTS_PER_REQUEST": "50",
            "LABELMILL_SWEEP_S": "1",
            # whatever else Celery listens to
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
            "BROKER_URL": "redis://127.0.0.1:1/0",
            "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0",
            "FLOWER_BROKER_API": "redis://127.0.0.1:1/0",
            "FLOWER_UNAUTHENTICATED_API": "true",
        }
        source = tmp_path / "texts.jsonl"
        texts = [f"text {'x' * (number % 4)} {number:05d}" for number in range(ROWS)]
        source.write_bytes(b"\n".join(orjson.dumps({"text": text}) for text in texts))
        with _processes(tmp_path, environment, flower_port) as logs:
            client = Client(Settings(broker_url=tls_redis.url(), database_url=environment["LABELMILL_DATABASE_URL"]))
            batch = client.classify(str(source), model="ft:classifier:stand-in")
            assert batch.warnings == ()
            _until(lambda: batch.status()["state"] == "completed", logs)
            assert [row["predictions"]["intent"]["label"] for row in batch.results()] == [label_of(t) for t in texts]
            address = f"http://127.0.0.1:{flower_port}"
            _until(lambda: "w@tls" in _read(f"{address}/api/workers?refresh=1"), logs)
            assert "classify" in _read(f"{address}/broker")
            doctor = subprocess.run(
                [sys.executable, "-m", "labelmill", "doctor", "--json"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
            checks = {check["name"]: check["status"] for check in json.loads(doctor.stdout)["checks"]}
            assert {checks[name] for name in ("broker", "workers", "queues")} == {"ok"}, doctor.stdout
            client.close()
            assert PASSWORD_IN_URL not in logs()
            assert PASSWORD not in logs()


@contextlib.contextmanager
def _processes(folder: Path, environment: dict[str, str], flower_port: int) -> Iterator[Callable[[], str]]:
    commands = {
        "worker": ["worker", "-Q", "prepare,train,classify", "-c", "2", "-n", "w@tls"],
        "flower": ["flower", f"--port={flower_port}"],
    }
    running = []
    for name, command in commands.items():
        with (folder / f"{name}.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "celery", "-A", "labelmill_worker.app", *command],
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        yield lambda: "\n".join((folder / f"{name}.log").read_text(errors="replace") for name in commands)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _read(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _until(condition: Callable[[], Any], explain: Callable[[], str], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in time: {explain()[-3000:]}"
        time.sleep(0.1)
