"""`db upgrade` beside transactions that hold tables, other upgrades, and users who may not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pgbouncer import PgBouncer
from sqlalchemy import make_url, text
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import (
    check_tables,
    connect,
    current_revision,
    head_revision,
    upgrade,
    upgrading,
    writing,
)
from labelmill.core.database.dialects import postgres
from labelmill_ops.embedded_postgres import EmbeddedPostgres

_UPGRADE = "import sys; from labelmill.core.database import connect, upgrade; upgrade(connect(sys.argv[1]))"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_LOCK_TIMEOUT_S", 1)
    monkeypatch.setattr(upgrading, "_PAUSE_S", (0.1, 0.2))


@pytest.fixture
def pending_migration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One more migration, which needs a table for itself."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    for file in ("env.py", "script.py.mako"):
        (folder / file).write_text((upgrading.MIGRATIONS / file).read_text())
    for file in (upgrading.MIGRATIONS / "versions").iterdir():
        if file.name.endswith(".py"):
            (folder / "versions" / file.name).write_text(file.read_text())
    (folder / "versions" / "9000_note.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f'revision = "9000"\ndown_revision = "{head_revision()}"\n'
        'def upgrade():\n    op.add_column("events", sa.Column("note", sa.Text()))\n'
    )
    for module in ("upgrading", "versions"):
        monkeypatch.setattr(f"labelmill.core.database.{module}.MIGRATIONS", folder)


def test_tables_in_use_are_waited_for_without_blocking_others(engine: Engine, pending_migration: None) -> None:
    heard: list[str] = []
    with engine.connect() as busy:
        transaction = busy.begin()
        busy.execute(text("INSERT INTO locks (name, until) VALUES ('busy', 0)"))
        busy.execute(text("SELECT count(*) FROM events"))
        if engine.dialect.name == "postgresql":
            thread = threading.Thread(target=upgrade, args=(engine,), kwargs={"report": heard.append})
            thread.start()
            deadline = time.monotonic() + 60
            while len(heard) < 2:
                assert time.monotonic() < deadline
                with writing(engine) as other:  # which fails where the upgrade blocks others while it waits
                    other.execute(text("SET LOCAL lock_timeout = '30s'"))
                    other.execute(text("INSERT INTO events (job_id, at, message) VALUES ('x', now(), 'x')"))
            assert "tables that are in use; the oldest transaction" in heard[0]
            assert current_revision(engine) != "9000"
            transaction.commit()
            thread.join(60)
        else:
            transaction.commit()
            upgrade(engine)
    assert current_revision(engine) == "9000"


@pytest.mark.postgres
def test_tables_that_are_never_let_go_end_the_upgrade(postgres_url: str, pending_migration: None) -> None:
    engine = connect(postgres_url)
    with engine.connect() as busy, busy.begin():
        busy.execute(text("SELECT count(*) FROM events"))
        with pytest.raises(DatabaseUnavailable):
            upgrade(engine, patience_s=1.5)
    assert current_revision(engine) != "9000"
    engine.dispose()


@pytest.mark.postgres
def test_upgrades_at_once_through_a_pooler_all_succeed(postgres_server: EmbeddedPostgres, pgbouncer: PgBouncer) -> None:
    postgres_server.execute("CREATE DATABASE at_once")
    url = pgbouncer.url("at_once")
    processes = [
        subprocess.Popen([sys.executable, "-c", _UPGRADE, url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0, 0, 0], ended
    engine = connect(url)
    check_tables(engine)
    engine.dispose()
    postgres_server.execute("DROP DATABASE at_once WITH (FORCE)")


@pytest.mark.postgres
def test_who_may_not_make_tables_is_told_what_to_run(postgres_server: EmbeddedPostgres) -> None:
    postgres_server.execute("DROP ROLE IF EXISTS newcomer")
    postgres_server.execute("CREATE ROLE newcomer LOGIN")
    postgres_server.execute("CREATE DATABASE rights TEMPLATE template0")
    owner = connect(postgres_server.url("rights"))
    newcomer = connect(postgres_server.url("rights").replace("postgres@", "newcomer@"))
    with writing(owner) as connection:
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    remedy = "GRANT USAGE, CREATE ON SCHEMA public TO newcomer"
    with pytest.raises(DatabaseUnavailable, match=remedy):
        upgrade(newcomer)
    with writing(owner) as connection:
        connection.execute(text(remedy))
    upgrade(newcomer)
    assert current_revision(newcomer) == head_revision()
    for engine in (owner, newcomer):
        engine.dispose()
    postgres_server.execute("DROP DATABASE rights WITH (FORCE)")
    postgres_server.execute("DROP ROLE newcomer")


@pytest.mark.postgres
def test_who_does_not_own_the_tables_is_told_who_does(
    postgres_server: EmbeddedPostgres, postgres_url: str, pending_migration: None
) -> None:
    postgres_server.execute("DROP ROLE IF EXISTS stranger")
    postgres_server.execute("CREATE ROLE stranger LOGIN")
    with writing(owner := connect(postgres_url)) as connection:
        connection.execute(text("GRANT CREATE ON SCHEMA public TO stranger"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO stranger"))
    stranger = connect(postgres_url.replace("postgres@", "stranger@"))
    with pytest.raises(DatabaseUnavailable, match="belong to postgres"):
        upgrade(stranger)
    with (
        pytest.raises(DatabaseUnavailable, match="GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"),
        writing(stranger) as connection,
    ):
        connection.execute(text("DELETE FROM locks"))
    with writing(owner) as connection:
        connection.execute(text("DROP OWNED BY stranger"))
    for engine in (owner, stranger):
        engine.dispose()
    postgres_server.execute("DROP ROLE stranger")


def test_an_upgrade_of_tables_that_are_up_to_date_needs_no_rights(engine: Engine) -> None:
    if engine.dialect.name == "postgresql":
        with writing(engine) as connection:
            name = make_url(str(engine.url)).database
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
        engine.dispose()
    upgrade(engine)
