"""A worker that may not use the database does not start, or stops taking work, and says why once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseNewer, DatabaseOutdated, DatabaseUnsuitable
from labelmill.core.database import connect, machines, writing
from labelmill_worker.runtime import database_watch
from labelmill_worker.runtime.database_watch import DatabaseWatch


@pytest.fixture
def watch(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DatabaseWatch]:
    (tmp_path / "boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
    monkeypatch.setattr(machines, "BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr(machines, "WATCH_S", 1.0)
    monkeypatch.setattr(database_watch, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(database_watch, "_TABLES_S", 0.0)
    made = DatabaseWatch(engine)
    yield made
    made.end()


def _say(engine: Engine, statement: str) -> None:
    with writing(engine) as connection:
        connection.execute(text(statement))


def test_tables_that_change_under_a_worker_stop_it_until_they_suit_it(engine: Engine, watch: DatabaseWatch) -> None:
    watch.check()
    _say(engine, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseNewer, match="a newer Labelmill made: upgrade this one"):
        watch.check()
    _say(engine, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(DatabaseOutdated, match="run `labelmill db upgrade`"):
        watch.check()


def test_another_machine_on_the_same_sqlite_stops_a_worker(engine: Engine, watch: DatabaseWatch) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL serves any number of machines")
    deadline = time.monotonic() + 60
    refused = False
    while not refused:  # the other one writes its heartbeat on and on
        assert time.monotonic() < deadline
        _say(engine, "UPDATE locks SET token = 'other', until = (julianday('now') - 2440587.5) * 86400.0")
        try:
            watch.check()
        except DatabaseUnsuitable:
            refused = True
        time.sleep(0.02)
    while refused:  # it is gone: its heartbeat stands still
        assert time.monotonic() < deadline
        try:
            watch.check()
        except DatabaseUnsuitable:
            time.sleep(0.05)
        else:
            refused = False


@pytest.mark.parametrize(
    ("statement", "code", "sentence"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", 7, "a newer Labelmill made: upgrade this one"),
        (None, 2, "network file system (nfs4)"),
    ],
)
@pytest.mark.slow
def test_a_worker_that_can_never_use_the_database_ends_with_one_sentence(
    sqlite_template: Path, redis_url: str, statement: str | None, code: int, sentence: str
) -> None:
    shutil.copy(sqlite_template, "jobs.db")
    start = (
        "import sys; from celery.__main__ import main; "
        "sys.argv = ['celery', '-A', 'labelmill_worker.app', 'worker', '-Q', 'classify', '-c', '1']; sys.exit(main())"
    )
    if statement:
        engine = connect("sqlite:///jobs.db")
        _say(engine, statement)
        engine.dispose()
    else:
        Path("mounts").write_text(f"1 0 0:1 / {Path.cwd()} rw - nfs4 server:/x rw\n")
        start = (
            "from pathlib import Path; from labelmill.core.database import file_systems; "
            f"file_systems.MOUNTS = Path('mounts'); {start}"
        )
    environment = os.environ | {"LABELMILL_DATABASE_URL": "sqlite:///jobs.db", "LABELMILL_BROKER_URL": redis_url}
    ended = subprocess.run(
        [sys.executable, "-c", start], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert sentence in line
    assert "Traceback" not in ended.stderr
