"""A client leaves nothing open, nor does a command that has ended."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from command_line import NOBODY_REDIS
from sqlalchemy import event
from sqlalchemy.engine import Engine
from typer.testing import CliRunner

from labelmill import Client
from labelmill.cli.main import build_app
from labelmill.contracts.errors import DatabaseOutdated, DatabaseUnavailable
from labelmill.core.database import connect, reading, upgrade
from labelmill.core.settings import load_settings


class _Opened:
    """Counts the connections of every engine that are open."""

    def __init__(self) -> None:
        self.count = 0

    def opened(self, *_: Any) -> None:
        self.count += 1

    def closed(self, *_: Any) -> None:
        self.count -= 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Any:
    counted = _Opened()
    event.listen(Engine, "connect", counted.opened)
    event.listen(Engine, "close", counted.closed)
    yield counted
    event.remove(Engine, "connect", counted.opened)
    event.remove(Engine, "close", counted.closed)


@pytest.fixture
def url(tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path}/jobs.db"
    engine = connect(address)
    upgrade(engine)
    engine.dispose()
    return address


def test_a_client_closes_what_it_opened(url: str, connections: _Opened) -> None:
    with Client(load_settings(database_url=url, broker_url=NOBODY_REDIS)) as client:
        assert client.jobs() == []
        assert connections.count == 1
    assert connections.count == 0


def test_a_client_that_meets_old_tables_leaves_no_connection(tmp_path: Path, connections: _Opened) -> None:
    with pytest.raises(DatabaseOutdated):
        Client(load_settings(database_url=f"sqlite:///{tmp_path}/empty.db", broker_url=NOBODY_REDIS))
    assert connections.count == 0


@pytest.mark.parametrize("command", [["status", "batch_0"], ["models"], ["db", "upgrade"], ["dead-letters"]])
def test_a_command_closes_its_connections(url: str, connections: _Opened, command: list[str]) -> None:
    CliRunner().invoke(build_app(), ["--database-url", url, "--broker-url", NOBODY_REDIS, *command])
    assert connections.count == 0


def test_a_connection_to_what_is_no_database_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(sqlite3.Connection):
        is_open = True

        def close(self) -> None:
            type(self).is_open = False
            super().close()

    plain = sqlite3.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *a, **k: plain(*a, factory=Watched, **k))
    (tmp_path / "notes.db").write_text("not a database, but long enough to be read as one" * 50)
    engine = connect(f"sqlite:///{tmp_path}/notes.db")
    with pytest.raises(DatabaseUnavailable), reading(engine):
        pass
    engine.dispose()
    assert not Watched.is_open
