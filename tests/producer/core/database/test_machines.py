"""SQLite serves one machine: another one is refused while workers of the first are alive, and not a moment longer."""

from __future__ import annotations

import shutil
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


class Clock:
    """The time in which a heartbeat is watched. It passes where somebody sleeps; `meanwhile` is what others do then."""

    def __init__(self) -> None:
        self.slept_s = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(machines, "time", made)
    return made


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock) -> Callable[[str], None]:
    """Go to the machine with this boot id."""
    file = tmp_path / "boot_id"
    monkeypatch.setattr(machines, "BOOT_ID", file)

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
def workers_elsewhere(sqlite: Engine, on_machine: Callable[[str], None], clock: Clock) -> None:
    """A worker of another machine has written its heartbeat, and writes the next ones."""
    on_machine(_OTHER)
    renew_machine_heartbeat(sqlite)
    on_machine(_THIS)
    due_at = machines.HEARTBEAT_S

    def beat() -> None:
        nonlocal due_at
        if clock.slept_s >= due_at:
            due_at += machines.HEARTBEAT_S
            with writing(sqlite) as connection:
                connection.execute(text("UPDATE locks SET until = until + 1 WHERE name = 'machine'"))

    clock.meanwhile = beat


def _holder(engine: Engine) -> str | None:
    with reading(engine) as connection:
        return connection.scalar(select(LockRow.lease_token).where(LockRow.name == "machine"))


@pytest.mark.usefixtures("workers_elsewhere")
def test_a_machine_beside_a_live_one_is_refused(sqlite: Engine) -> None:
    for refused in (renew_machine_heartbeat, require_only_this_machine):
        with pytest.raises(DatabaseUnsuitable, match="another machine use this database now: use PostgreSQL"):
            refused(sqlite)
    settings = load_settings(database_url=str(sqlite.url))
    with pytest.raises(DatabaseUnsuitable):
        Client(settings)
    check = check_database(settings).checks[-1]
    assert (check.name, check.status.value) == ("database machines", "failed")
    assert check.remedy.startswith("use PostgreSQL")


@pytest.mark.usefixtures("workers_elsewhere")
def test_a_machine_whose_workers_ended_keeps_nobody_out(sqlite: Engine, clock: Clock) -> None:
    clock.meanwhile = lambda: None
    require_only_this_machine(sqlite)
    watched_s = clock.slept_s
    assert watched_s >= machines.WATCH_S
    require_only_this_machine(sqlite)  # the next command
    assert clock.slept_s == watched_s
    renew_machine_heartbeat(sqlite)
    assert _holder(sqlite) == _THIS.replace("-", "")


def test_a_restarted_machine_goes_on(sqlite: Engine, on_machine: Callable[[str], None]) -> None:
    renew_machine_heartbeat(sqlite)
    on_machine(_OTHER)  # a new boot id
    renew_machine_heartbeat(sqlite)
    assert _holder(sqlite) == _OTHER.replace("-", "")


def test_a_heartbeat_of_long_ago_is_not_watched(
    sqlite: Engine, on_machine: Callable[[str], None], clock: Clock
) -> None:
    on_machine(_OTHER)
    renew_machine_heartbeat(sqlite)
    on_machine(_THIS)
    with writing(sqlite) as connection:
        connection.execute(text("UPDATE locks SET until = until - 1000"))
    renew_machine_heartbeat(sqlite)
    assert clock.slept_s == 0


def test_processes_of_one_machine_share_it(sqlite: Engine, on_machine: Callable[[str], None]) -> None:
    for _ in range(3):
        renew_machine_heartbeat(sqlite)
        require_only_this_machine(sqlite)
    assert _holder(sqlite) == _THIS.replace("-", "")


@pytest.mark.usefixtures("workers_elsewhere")
def test_where_a_kernel_has_no_boot_id_nothing_is_compared(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
