"""SQLite serves one machine: another one is refused while workers of the first are alive, and not a moment longer."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import Engine

from labelmill.client import Client
from labelmill.contracts.errors import DatabaseUnsuitable
from labelmill.core.database import (
    connect,
    machines,
    reading,
    renew_machine_heartbeat,
    require_only_this_machine,
    writing,
)
from labelmill.core.database.tables import LockRow
from labelmill.core.settings import load_settings
from labelmill.doctor.database import check_database

_THIS, _OTHER = "11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Go to the machine with this boot id."""
    file = tmp_path / "boot_id"
    monkeypatch.setattr(machines, "BOOT_ID", file)
    monkeypatch.setattr(machines, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(machines, "WATCH_S", 1.0)

    def go(boot_id: str) -> None:
        file.write_text(f"{boot_id}\n")

    go(_THIS)
    return go


@pytest.fixture
def sqlite(sqlite_template: Path, tmp_path: Path) -> Iterator[Engine]:
    shutil.copy(sqlite_template, tmp_path / "jobs.db")
    engine = connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def workers_elsewhere(sqlite: Engine, on_machine: Callable[[str], None]) -> Iterator[threading.Event]:
    """A worker of another machine writes its heartbeat until the event is set."""
    on_machine(_OTHER)
    renew_machine_heartbeat(sqlite)
    on_machine(_THIS)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            with writing(sqlite) as connection:
                connection.execute(text("UPDATE locks SET until = until + 0.1 WHERE name = 'machine'"))

    thread = threading.Thread(target=beat)
    thread.start()
    yield ended
    ended.set()
    thread.join()


def _holder(engine: Engine) -> str | None:
    with reading(engine) as connection:
        return connection.scalar(select(LockRow.lease_token).where(LockRow.name == "machine"))


def test_a_machine_beside_a_live_one_is_refused(sqlite: Engine, workers_elsewhere: threading.Event) -> None:
    for refused in (renew_machine_heartbeat, require_only_this_machine):
        with pytest.raises(DatabaseUnsuitable, match="another machine use this database now: use PostgreSQL"):
            refused(sqlite)
    settings = load_settings(database_url=str(sqlite.url))
    with pytest.raises(DatabaseUnsuitable):
        Client(settings)
    check = check_database(settings).checks[-1]
    assert (check.name, check.status.value) == ("database machines", "failed")
    assert check.remedy.startswith("use PostgreSQL")


def test_a_machine_whose_workers_ended_keeps_nobody_out(sqlite: Engine, workers_elsewhere: threading.Event) -> None:
    workers_elsewhere.set()
    time.sleep(0.2)  # its last heartbeat
    started = time.monotonic()
    require_only_this_machine(sqlite)
    assert time.monotonic() - started >= 1.0, "nobody watched"
    started = time.monotonic()
    require_only_this_machine(sqlite)  # the next command
    assert time.monotonic() - started < 1.0
    renew_machine_heartbeat(sqlite)
    assert _holder(sqlite) == _THIS.replace("-", "")


def test_a_restarted_machine_goes_on(sqlite: Engine, on_machine: Callable[[str], None]) -> None:
    renew_machine_heartbeat(sqlite)
    on_machine(_OTHER)  # a new boot id
    renew_machine_heartbeat(sqlite)
    assert _holder(sqlite) == _OTHER.replace("-", "")


def test_a_heartbeat_of_long_ago_is_not_watched(sqlite: Engine, on_machine: Callable[[str], None]) -> None:
    on_machine(_OTHER)
    renew_machine_heartbeat(sqlite)
    on_machine(_THIS)
    with writing(sqlite) as connection:
        connection.execute(text("UPDATE locks SET until = until - 1000"))
    started = time.monotonic()
    renew_machine_heartbeat(sqlite)
    assert time.monotonic() - started < 1.0


def test_processes_of_one_machine_share_it(sqlite: Engine, on_machine: Callable[[str], None]) -> None:
    for _ in range(3):
        renew_machine_heartbeat(sqlite)
        require_only_this_machine(sqlite)
    assert _holder(sqlite) == _THIS.replace("-", "")


def test_where_a_kernel_has_no_boot_id_nothing_is_compared(
    sqlite: Engine, workers_elsewhere: threading.Event, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machines, "BOOT_ID", tmp_path / "none")
    require_only_this_machine(sqlite)
    renew_machine_heartbeat(sqlite)


@pytest.mark.postgres
def test_postgresql_serves_any_number_of_machines(postgres_url: str, on_machine: Callable[[str], None]) -> None:
    engine = connect(postgres_url)
    for boot_id in (_THIS, _OTHER):
        on_machine(boot_id)
        renew_machine_heartbeat(engine)
        require_only_this_machine(engine)
    engine.dispose()
