"""Connections to PostgreSQL mean the same whatever the environment, the role or a pooler says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from pgbouncer import PgBouncer
from sqlalchemy import insert, make_url, select, text

from labelmill.contracts.errors import DatabaseUnavailable, DatabaseUnsuitable
from labelmill.core.database import PRODUCER_CONNECTIONS, connect, reading, upgrade, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.dialects.postgres_connections import is_pooled
from labelmill.core.database.tables import DeadLetterRow, LockRow
from labelmill_ops.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres

_WORDS = "naïve Ĉapelo 日本 🎉"


@pytest.fixture
def role(postgres_server: EmbeddedPostgres, postgres_url: str) -> Iterator[str]:
    """A role that may use the tables of `postgres_url`. Drops what a test sets for it."""
    postgres_server.execute("DROP ROLE IF EXISTS mill")
    postgres_server.execute("CREATE ROLE mill LOGIN")
    with writing(engine := connect(postgres_url)) as connection:
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO mill"))
        connection.execute(text("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO mill"))
    yield "mill"
    with writing(engine) as connection:
        connection.execute(text("DROP OWNED BY mill CASCADE"))
    engine.dispose()
    postgres_server.execute("DROP ROLE mill")


def _through(pgbouncer: PgBouncer, url: str, user: str = "postgres") -> str:
    return pgbouncer.url(str(make_url(url).database), user)


def test_a_process_holds_no_more_connections_than_it_may(postgres_url: str) -> None:
    engine = connect(postgres_url)
    name = make_url(postgres_url).database
    threads = 3 * PRODUCER_CONNECTIONS
    with ThreadPoolExecutor(threads) as pool:

        def count(_: int) -> int:
            with reading(engine) as connection:
                connection.execute(text("SELECT pg_sleep(0.05)"))
                return int(
                    connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE datname = :n"), {"n": name})
                    or 0
                )

        assert max(pool.map(count, range(threads))) == PRODUCER_CONNECTIONS
    engine.dispose()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGCLIENTENCODING", "SQL_ASCII"),
        ("PGTZ", "Asia/Tokyo"),
        ("PGDATESTYLE", "German"),
        ("PGOPTIONS", "-c datestyle=SQL,DMY -c timezone=Asia/Tokyo -c client_encoding=LATIN1 -c bytea_output=escape"),
        (
            "PGOPTIONS",
            "-c default_transaction_isolation=serializable -c extra_float_digits=0",
        ),
    ],
)
def test_variables_of_the_environment_change_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    _assert_writes_and_reads_the_same(postgres_url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("datestyle", "German"),
        ("timezone", "America/St_Johns"),
        ("client_encoding", "LATIN1"),
        ("default_transaction_isolation", "repeatable read"),
        ("bytea_output", "escape"),
        ("standard_conforming_strings", "off"),
    ],
)
def test_settings_of_the_role_change_nothing(
    postgres_server: EmbeddedPostgres, postgres_url: str, pgbouncer: PgBouncer, role: str, name: str, value: str
) -> None:
    postgres_server.execute(f"ALTER ROLE {role} SET {name} = '{value}'")
    _assert_writes_and_reads_the_same(postgres_url.replace("postgres@", f"{role}@"))
    _assert_writes_and_reads_the_same(_through(pgbouncer, postgres_url, role))


def _assert_writes_and_reads_the_same(url: str) -> None:
    engine = connect(url)
    at = datetime(2026, 2, 3, 23, 30, tzinfo=UTC)
    with writing(engine) as connection:
        no = connection.execute(
            insert(DeadLetterRow).values(reason=_WORDS, excerpt="\\ ' \\n", at=at).returning(DeadLetterRow.no)
        ).scalar_one()
        dialect_of(connection).bulk_insert(
            connection, "locks", ("name", "token", "until"), [("äöü", "日本", 0.1 + 0.2)]
        )
    with reading(engine) as connection:
        row = connection.execute(select(DeadLetterRow.__table__).where(DeadLetterRow.no == no)).one()
        lock = connection.execute(select(LockRow.lease_token, LockRow.lease_until).where(LockRow.name == "äöü")).one()
        assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"
        assert connection.scalar(text("SELECT octet_length(token) FROM locks")) == len("日本".encode())
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM locks"))
    engine.dispose()
    assert (row.reason, row.excerpt) == (_WORDS, "\\ ' \\n")
    assert row.at.isoformat() == at.isoformat()
    assert (lock.token, round(lock.until, 12)) == ("日本", 0.3)


def test_tables_lie_in_the_schema_that_the_role_names(
    postgres_server: EmbeddedPostgres, postgres_url: str, role: str
) -> None:
    admin = connect(postgres_url)
    with writing(admin) as connection:
        connection.execute(text(f"CREATE SCHEMA apart AUTHORIZATION {role}"))
    postgres_server.execute(f"ALTER ROLE {role} SET search_path = apart")
    engine = connect(postgres_url.replace("postgres@", f"{role}@"))
    upgrade(engine)
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM apart.batches")) == 0
    with writing(admin) as connection:
        connection.execute(text("DROP SCHEMA apart CASCADE"))
    for one in (engine, admin):
        one.dispose()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: EmbeddedPostgres, encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    engine = connect(postgres_server.url(name))
    with pytest.raises(DatabaseUnsuitable, match=f"keeps text in {encoding}.* ENCODING 'UTF8'"):
        upgrade(engine)
    engine.dispose()
    postgres_server.execute(f"DROP DATABASE {name}")


def test_behind_a_pooler_no_session_is_relied_on(postgres_url: str, pgbouncer: PgBouncer) -> None:
    direct, pooled = connect(postgres_url), connect(_through(pgbouncer, postgres_url))
    with reading(direct) as connection:
        assert not is_pooled(connection)
    with reading(pooled) as connection:
        assert is_pooled(connection)
        # what one client sets for a session that it shares, all others would get
        idle = connection.scalar(text("SHOW tcp_keepalives_idle"))
        assert idle != "10"
    statement = insert(LockRow).values(name=text(":name"), lease_until=1.0).returning(LockRow.name)

    def write(worker: int) -> None:
        for number in range(20):  # a driver prepares what it has seen five times
            with writing(pooled) as connection:
                names = [{"name": f"{worker}-{number}-{part}"} for part in range(3)]
                assert len(dialect_of(connection).rows_at_once(connection, statement, names)) == 3
                dialect_of(connection).bulk_insert(
                    connection, "dead_letters", ("at", "reason", "excerpt"), [(datetime.now(UTC), "r", "e")]
                )
            with reading(pooled) as connection:
                assert (
                    connection.scalar(select(LockRow.lease_until).where(LockRow.name == f"{worker}-{number}-0")) == 1.0
                )

    with ThreadPoolExecutor(PRODUCER_CONNECTIONS) as pool:
        list(pool.map(write, range(PRODUCER_CONNECTIONS)))
    for one in (direct, pooled):
        one.dispose()


def test_a_pooler_that_is_gone_is_a_database_out_of_reach(postgres_url: str, pgbouncer: PgBouncer) -> None:
    engine = connect(_through(pgbouncer, postgres_url))
    with reading(engine) as connection:
        connection.execute(text("SELECT 1"))
    pgbouncer.kill()
    with pytest.raises(DatabaseUnavailable), reading(engine) as connection:
        connection.execute(text("SELECT 1"))
    pgbouncer.start()
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()
