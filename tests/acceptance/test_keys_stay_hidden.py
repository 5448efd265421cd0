"""After a whole day's work, good and bad, no place that anything is written to holds the key or a password."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import MetaData, Table, create_engine, inspect, select

from labelmill.core.running_stack import running_stack
from labelmill_ops.embedded_postgres import EmbeddedPostgres
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.ports import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.postgres]

KEY = "distinctive-key-8c1f27"
BROKER_PASSWORD = "broker-pass-4471e0"
DATABASE_PASSWORD = "database-pass-9d02ab"
SECRETS = (KEY, BROKER_PASSWORD, DATABASE_PASSWORD)
_ROLE = "mill"


class _Echo(ThreadingHTTPServer):
    """Answers every request with `status`, and repeats the key in its body, its headers and its status line."""

    daemon_threads = True
    status = 401

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _EchoAnswer)


class _EchoAnswer(BaseHTTPRequestHandler):
    server: _Echo

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = str(self.headers["Authorization"])
        body = json.dumps(
            {"message": f"{sent} is no good", "headers": {"Authorization": sent}, "detail": sent}
        ).encode()
        self.send_response(self.server.status, f"no good {sent}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Authorization", sent)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


class Place:
    """A stack, its servers, and all that was printed."""

    def __init__(self, folder: Path, broker_url: str, database_url: str) -> None:
        self.folder, self.broker_url, self.database_url = folder, broker_url, database_url
        self.flower = f"http://127.0.0.1:{free_port()}"
        self.printed: list[str] = []
        self.environment = os.environ | {
            "LABELMILL_BROKER_URL": broker_url,
            "LABELMILL_DATABASE_URL": database_url,
            "LABELMILL_DATA_DIR": str(folder / "data"),
            "LABELMILL_SWEEP_S": "1",
            "LABELMILL_POLL_S": "0.2",
            "LABELMILL_DEBUG": "1",
            "FLOWER_UNAUTHENTICATED_API": "true",
        }

    def run(self, *arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "labelmill", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        self.printed += [ended.stdout, ended.stderr]
        return ended.returncode, ended.stdout

    @contextlib.contextmanager
    def up(self, *flags: str, **environment: str) -> Iterator[None]:
        command = [sys.executable, "-m", "labelmill", "up", "--worker-processes", "1", "--verbose", *flags]
        port = urllib.parse.urlsplit(self.flower).port
        log = self.folder / f"up-{len(self.printed)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--flower-port", str(port)],
                cwd=self.folder,
                stdout=output,
                stderr=output,
                env=self.environment | {"MISTRAL_API_KEY": KEY} | environment,
            )
        try:
            until(lambda: running_stack(self.folder / "data") or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            self.keep("stack.json", (self.folder / "data" / "stack.json").read_text(), allowed=SECRETS[1:])
            yield
            for path in ("/api/workers?refresh=1", "/api/tasks", "/broker", "/workers", "/metrics", "/"):
                with urllib.request.urlopen(self.flower + path, timeout=20) as answer:
                    self.keep(f"Flower {path}", answer.read().decode())
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def keep(self, what: str, text: str, allowed: tuple[str, ...] = ()) -> None:
        """Nothing secret in it, now."""
        found = [secret for secret in SECRETS if secret in text and secret not in allowed]
        assert not found, f"{what} holds {found}: {text[:2000]}"


def until(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


@pytest.fixture
def place(tmp_path: Path, postgres_server: EmbeddedPostgres, postgres_url: str) -> Iterator[Place]:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("requirepass", BROKER_PASSWORD)
    postgres_server.execute(f"CREATE ROLE {_ROLE} LOGIN SUPERUSER PASSWORD '{DATABASE_PASSWORD}'")
    database = postgres_url.replace("//postgres@", f"//{_ROLE}:{DATABASE_PASSWORD}@")
    assert DATABASE_PASSWORD in database
    yield Place(tmp_path, server.url.replace("//", f"//:{BROKER_PASSWORD}@"), database)
    postgres_server.execute(f"DROP ROLE {_ROLE}")
    server.stop()


def _values_of(database_url: str) -> Iterator[tuple[str, str]]:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        for name in inspect(connection).get_table_names():
            for row in connection.execute(select(Table(name, MetaData(), autoload_with=connection))):
                yield (
                    name,
                    " ".join(value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row),
                )
    engine.dispose()


def _values_in_redis(url: str) -> Iterator[tuple[str, str]]:
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace") as client:
        for key in client.scan_iter():
            kind = client.type(key)
            read: dict[str, Callable[[], Any]] = {
                "string": lambda key=key: client.get(key),
                "list": lambda key=key: client.lrange(key, 0, -1),
                "hash": lambda key=key: client.hgetall(key),
                "set": lambda key=key: client.smembers(key),
                "zset": lambda key=key: client.zrange(key, 0, -1),
            }
            yield key, f"{key} {read.get(str(kind), str)()}"


@contextlib.contextmanager
def watched_redis(place: Place) -> Iterator[None]:
    """Looks at everything that passes through Redis while the block runs, and at what stands in it at its end."""
    passed: list[str] = []
    ended = f"the end {os.urandom(4).hex()}"
    with (
        redis.Redis.from_url(place.broker_url, decode_responses=True, encoding_errors="replace") as client,
        client.monitor() as monitor,
    ):

        def listen() -> None:
            for command in monitor.listen():
                passed.append(str(command["command"]))
                if ended in passed[-1]:
                    return

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        yield
        client.echo(ended)
        listener.join(20)
    assert len(passed) > 20
    # who connects says the password; that is what it is for
    place.keep("what passed through Redis", "\n".join(one for one in passed if not one.startswith(("AUTH", "HELLO"))))
    for name, value in _values_in_redis(place.broker_url):
        place.keep(f"Redis {name}", value)


def test_no_sink_holds_the_key_or_a_password(place: Place) -> None:
    texts = [{"text": f"{word} number {n}", "intent": word} for n in range(20) for word in ("play", "stop", "ask")]
    (place.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    classify = ("classify", "rows.jsonl", "--wait", "--model")
    with place.up("--emulator"):
        assert place.run("prepare", "intents", "rows.jsonl", "--target", "intent=intent", "--wait")[0] == 0
        assert place.run("train", "intents", "--dataset", "intents", "--yes", "--wait")[0] == 0
        assert place.run("evaluate", "intents", "--dataset", "intents", "--wait")[0] == 0
        assert place.run(*classify, "intents", "-o", "out.jsonl")[0] == 0
        train = ("train", "asked", "--dataset", "intents", "--method", "prompt", "--shots", "1", "--yes", "--wait")
        assert place.run(*train)[0] == 0
        with watched_redis(place):
            assert place.run(*classify, "asked")[0] == 0
        assert place.run("doctor", "--json")[0] == 0

    echo = _Echo()
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{echo.server_port}"
    with place.up(LABELMILL_MISTRAL_URL=address), watched_redis(place):
        assert place.run(*classify, "intents")[0] == 5
        assert place.run(*classify, "asked")[0] == 5
        assert place.run("train", "other", "--dataset", "intents", "--method", "factory", "--yes", "--wait")[0] == 5
        code, said = place.run("doctor")
        assert code == 5, said
        echo.status = 422
        assert place.run(*classify, "intents")[0] == 1
        echo.status = 500
        until(lambda: place.run("doctor")[0] == 1)  # what was found is kept for some seconds
    echo.shutdown()
    echo.server_close()

    for name, value in _values_of(place.database_url):
        place.keep(f"table {name}", value)
    for name, value in _values_in_redis(place.broker_url):
        place.keep(f"Redis {name}", value)
    looked_at = 0
    for file in place.folder.rglob("*"):
        if file.is_file() and "redis" not in file.relative_to(place.folder).parts[:1]:
            place.keep(str(file), file.read_bytes().decode("latin-1"))
            looked_at += 1
    assert looked_at > 10
    for text in place.printed:
        place.keep("the command line", text)
