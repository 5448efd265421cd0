"""A process that is told to end while it starts a server leaves none behind."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmill_ops import embedded_redis
from labelmill_ops.embedded_postgres import EmbeddedPostgres
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.held_signals import signals_held


class _ToldToEnd(BaseException):
    pass


def _raise(*_: object) -> None:
    raise _ToldToEnd


@pytest.fixture
def _a_handler_that_raises() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _raise)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_a_handler_that_raises")
def test_a_handler_runs_when_what_was_started_is_known() -> None:
    started: list[str] = []

    def start() -> None:
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
            started.append("a process")

    with pytest.raises(_ToldToEnd):
        start()
    assert started
    with pytest.raises(_ToldToEnd):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("_a_handler_that_raises")
def test_a_redis_that_is_not_ready_yet_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "answers_ping", lambda _: signal.raise_signal(signal.SIGTERM))
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(_ToldToEnd), server:
        raise AssertionError("it is not ready")
    assert not embedded_redis._answer(server.port, b"PING\r\n")


@pytest.mark.postgres
@pytest.mark.usefixtures("_a_handler_that_raises", "postgres_server")
def test_a_postgresql_that_is_not_ready_yet_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres()
    started: list[subprocess.Popen[bytes]] = []

    def never_ready(self: EmbeddedPostgres, _: Path) -> bool:
        assert self._process is not None
        started.append(self._process)
        signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(EmbeddedPostgres, "_takes_connections", never_ready)
    with pytest.raises(_ToldToEnd):
        server.start()
    assert started[0].poll() is not None
