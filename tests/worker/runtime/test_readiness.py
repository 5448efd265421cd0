"""What a worker reports about itself to its supervisor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from labelmill.core.database import connect, upgrade
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_worker.process import draining
from labelmill_worker.runtime.bootstrap import close_database, forget_resources
from labelmill_worker.runtime.readiness import ReadyFile

INTERVAL_S = 0.05


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def ready_file(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[ReadyFile]:
    path = tmp_path / "ready"
    settings = Settings(broker_url=redis_server.url, data_dir=str(tmp_path), ready_file=path)
    file = ReadyFile(path, settings, MessageSender(Celery("test", set_as_current=False)), INTERVAL_S)
    yield file
    file.stop()
    close_database()
    forget_resources()


def make_tables(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'labelmill.db'}")
    upgrade(engine)
    engine.dispose()


def test_the_file_is_there_and_renewed_once_the_tables_are(ready_file: ReadyFile, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.touch()
    ready_file.start()
    wait_for(lambda: not path.exists())  # what a killed worker left says nothing
    make_tables(tmp_path)
    wait_for(path.exists)
    first = path.stat().st_mtime_ns
    wait_for(lambda: path.stat().st_mtime_ns > first)


def test_the_file_goes_with_redis_and_comes_back(
    ready_file: ReadyFile, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    path = tmp_path / "ready"
    make_tables(tmp_path)
    ready_file.start()
    wait_for(path.exists)
    redis_server.kill()
    wait_for(lambda: not path.exists())
    redis_server.start()
    wait_for(path.exists)


def test_a_worker_that_drains_is_not_ready(
    ready_file: ReadyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ready"
    make_tables(tmp_path)
    ready_file.start()
    wait_for(path.exists)
    monkeypatch.setattr(draining, "is_draining", lambda: True)
    wait_for(lambda: not path.exists())
