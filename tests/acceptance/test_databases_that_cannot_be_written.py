"""A database that answers and cannot be written to, lies in another folder, or may not be used by this user."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import NOBODY_REDIS, Ended, Run
from sqlalchemy import make_url, text

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import connect, file_systems, writing
from labelmill_ops.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.acceptance

_SUBMIT = "classify good.jsonl --model ft:classifier:x"


@pytest.fixture
def run_apart(run: Run) -> Run:
    """Run a command in a process of its own, whose connections end with it."""
    del run  # it made the files

    def run_command(*arguments: str, **environment: str) -> Ended:
        given = dict(os.environ) | {"LABELMILL_BROKER_URL": NOBODY_REDIS} | environment
        ended = subprocess.run(
            [sys.executable, "-m", "labelmill", *arguments],
            env=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr, 0.0)

    return run_command


def _doctor(run: Run, **environment: str) -> dict[str, Any]:
    ended = run("doctor", "--json", **environment)
    assert ended.code == 7
    return {check["name"]: check for check in json.loads(ended.out)["checks"]}


@pytest.fixture
def read_only(postgres_server: EmbeddedPostgres, postgres_url: str) -> Iterator[str]:
    """A PostgreSQL database that answers and takes no writes, as after a failover."""
    name = make_url(postgres_url).database
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    yield postgres_url
    postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@pytest.mark.postgres
def test_a_read_only_postgresql_is_exit_code_7_and_named(run_apart: Run, read_only: str) -> None:
    given = {"LABELMILL_DATABASE_URL": read_only}
    ended = run_apart(*_SUBMIT.split(), **given)
    assert ended.code == 7
    assert "the database is read-only, as a replica is: name the primary server" in ended.sentence
    assert run_apart("status", **given).code == 0
    check = _doctor(run_apart, **given)["database writes"]
    assert (check["status"], check["summary"]) == ("failed", "the database is read-only, as a replica is")
    assert "primary" in check["remedy"]


def test_a_read_only_sqlite_is_exit_code_7_and_named(run: Run) -> None:
    given = {"LABELMILL_DATABASE_URL": "sqlite:///file:jobs.db?mode=ro&uri=true"}
    ended = run(*_SUBMIT.split(), **given)
    assert ended.code == 7
    assert "the database is read-only: let this user write" in ended.sentence
    assert run("status", **given).code == 0
    checks = _doctor(run, **given)
    check = checks.get("database writes", checks["database"])
    assert (check["status"], check["summary"]) == ("failed", "the database is read-only")


def test_a_sqlite_without_room_is_exit_code_7_and_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy import event  # noqa: PLC0415 - only here
    from sqlalchemy.engine import Engine  # noqa: PLC0415 - only here

    def no_room(connection: sqlite3.Connection, _: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", no_room)
    try:
        Path("long.jsonl").write_text(
            "".join(json.dumps({"text": f"{number:x}" * 40}) + "\n" for number in range(3000))
        )
        ended = run(*_SUBMIT.replace("good", "long").split())
    finally:
        event.remove(Engine, "connect", no_room)
    assert ended.code == 7
    assert "disk is full" in ended.sentence


@pytest.mark.postgres
def test_a_user_without_rights_is_told_what_to_grant(
    run_apart: Run, postgres_server: EmbeddedPostgres, postgres_url: str
) -> None:
    postgres_server.execute("DROP ROLE IF EXISTS onlooker")
    postgres_server.execute("CREATE ROLE onlooker LOGIN")
    with writing(engine := connect(postgres_url)) as connection:
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO onlooker"))
    given = {"LABELMILL_DATABASE_URL": postgres_url.replace("postgres@", "onlooker@")}
    ended = run_apart(*_SUBMIT.split(), **given)
    assert ended.code == 7
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO onlooker" in ended.sentence
    assert "GRANT" in _doctor(run_apart, **given)["database writes"]["remedy"]
    with writing(engine) as connection:
        connection.execute(text("DROP OWNED BY onlooker"))
    engine.dispose()
    postgres_server.execute("DROP ROLE onlooker")


@pytest.mark.postgres
def test_a_database_in_another_encoding_is_named(run: Run, postgres_server: EmbeddedPostgres) -> None:
    postgres_server.execute("CREATE DATABASE bytes_alone ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    given = {"LABELMILL_DATABASE_URL": postgres_server.url("bytes_alone")}
    for command in ("db upgrade", "status"):
        ended = run(*command.split(), **given)
        assert ended.code == 2
        assert "keeps text in SQL_ASCII" in ended.sentence
    assert "CREATE DATABASE labelmill ENCODING 'UTF8'" in _doctor(run, **given)["database"]["remedy"]
    postgres_server.execute("DROP DATABASE bytes_alone")


@pytest.mark.postgres
def test_connections_are_counted(
    run_apart: Run, postgres_server: EmbeddedPostgres, postgres_url: str, redis_url: str
) -> None:
    given = {"LABELMILL_DATABASE_URL": postgres_url, "LABELMILL_BROKER_URL": redis_url}
    documents = json.loads(run_apart("doctor", "--json", **given).out)["checks"]
    check = next(check for check in documents if check["name"] == "database connections")
    assert check["status"] == "ok"
    assert "of 197 are used; 0 worker processes and a producer may hold 8" in check["summary"]
    name = make_url(postgres_url).database
    postgres_server.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 5")
    documents = json.loads(run_apart("doctor", "--json", **given).out)["checks"]
    check = next(check for check in documents if check["name"] == "database connections")
    assert (check["status"], "of 5 are used" in check["summary"]) == ("warning", True)
    assert "max_connections" in check["remedy"]


@pytest.mark.parametrize(
    "command", ["status", "models", "datasets", "watch batch_01", "results batch_01", "dead-letters", _SUBMIT]
)
def test_a_folder_where_no_labelmill_runs_is_named_and_left_as_it_is(run: Run, command: str) -> None:
    before = sorted(Path.cwd().rglob("*"))
    ended = run(*command.split(), LABELMILL_DATABASE_URL="")
    assert ended.code == 7
    assert f"no Labelmill runs in this folder: {Path.cwd() / '.labelmill'} holds no database" in ended.sentence
    assert "--data-dir" in ended.sentence
    assert sorted(Path.cwd().rglob("*")) == before


def test_doctor_makes_nothing_in_a_folder_where_no_labelmill_runs(run: Run) -> None:
    before = sorted(Path.cwd().rglob("*"))
    check = _doctor(run, LABELMILL_DATABASE_URL="")["database tables"]
    assert "no Labelmill runs in this folder" in check["summary"]
    assert "LABELMILL_DATA_DIR" in check["remedy"]
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_sqlite_file_that_is_not_there_is_not_made_by_looking(run: Run) -> None:
    ended = run("status", LABELMILL_DATABASE_URL="sqlite:///elsewhere/fresh.db")
    assert ended.code == 7
    assert "run `labelmill db upgrade` (the database is sqlite:///elsewhere/fresh.db)" in ended.sentence
    assert not Path("elsewhere").exists()


_MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / {cwd} rw,relatime shared:5 - {kind} server:/export rw,vers=4.2
41 27 0:51 / {cwd}/with\040space rw,relatime - ext4 /dev/vdb rw
42 27 0:52 / {cwd}/shadowed rw,relatime - ext4 /dev/vdc rw
43 27 0:53 / {cwd}/shadowed rw,relatime master:1 - nfs4 server:/other rw
"""


@pytest.fixture(params=["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "lustre"])
def shared_folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The folder of the test lies on a network file system, as the mount table has it."""
    table = tmp_path / "mountinfo"
    table.write_text(_MOUNTS.format(cwd=Path.cwd(), kind=request.param))
    monkeypatch.setattr(file_systems, "MOUNTS", table)
    return str(request.param)


def test_sqlite_on_a_network_file_system_is_refused(run: Run, shared_folder: str) -> None:
    for command in ("status", "db upgrade", _SUBMIT):
        ended = run(*command.split(), LABELMILL_DATABASE_URL="sqlite:///jobs.db")
        assert ended.code == 2
        assert f"a network file system ({shared_folder})" in ended.sentence
        assert "use PostgreSQL" in ended.sentence
    check = _doctor(run)["database"]
    assert "network file system" in check["summary"]
    assert "PostgreSQL" in check["remedy"]


def test_the_mount_that_is_seen_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(_MOUNTS.format(cwd=Path.cwd(), kind="nfs"))
    monkeypatch.setattr(file_systems, "MOUNTS", table)
    Path("with space").mkdir()
    Path("link.db").symlink_to("with space/jobs.db")
    find = file_systems.network_file_system
    assert find(Path("jobs.db")) == "nfs"
    assert find(Path("with space/deeper/jobs.db")) is None
    assert find(Path("link.db")) is None
    assert find(Path("shadowed/jobs.db")) == "nfs4"
    assert find(Path("/elsewhere/jobs.db")) is None
    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "none")
    assert find(Path("jobs.db")) is None


def test_without_rights_on_its_folder_sqlite_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DatabaseUnavailable, match="cannot be made"):
        connect(f"sqlite:///{tmp_path}/taken/jobs.db")
