"""PostgreSQL: many writers, COPY, advisory locks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from sqlalchemy import URL, Executable, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database.dialects.base import Dialect, S, ServerConnections, ServerFacts, driver_of, quoted
from labelmill.core.database.dialects.postgres_connections import is_pooled, open_postgres

_LOCK_TIMEOUT_S = 3  #: Statements queue behind a waiting upgrade: for no longer than this.
_UPGRADE_LOCK = 7_140_521  # an advisory lock; any fixed number
_OLDEST_TESTED = 140000

#: What begins and ends the binary COPY format: signature, no flags, no extension; a row of -1 fields.
_BINARY_HEAD, _BINARY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


#: Always true; that it is volatile keeps the server from gathering rows before it inserts them. It would gather up to a
#: thousand, in slots whose making takes time by the square of their number: a COPY of 800 rows takes 1.4 times the CPU.
#: A row takes 48 bytes more of the write-ahead log instead, and from some 2,000 rows on nothing is gained.
_ROW_BY_ROW, _MANY_ROWS = "WHERE random() IS NOT NULL", 2_000


class Postgres(Dialect):
    """PostgreSQL by psycopg."""

    name = "postgresql"
    locks_rows = True
    copies_binary = True
    aggregates_bytes = True
    serves_one_machine = False

    def open(self, url: URL, *, max_connections: int, create_folder: bool) -> Engine:
        del create_folder
        return open_postgres(url, max_connections)

    def choose(self, *, sqlite: S, postgres: S) -> S:
        del sqlite
        return postgres

    def bulk_insert(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        statement = f"COPY {table} ({quoted(columns)}) FROM STDIN"
        with driver_of(connection).cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def copy_binary(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Iterable[bytes], count: int
    ) -> None:
        where = _ROW_BY_ROW if count < _MANY_ROWS else ""
        statement = f"COPY {table} ({quoted(columns)}) FROM STDIN (FORMAT BINARY) {where}"
        with driver_of(connection).cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(_BINARY_HEAD)
            for piece in rows:
                copy.write(piece)
            copy.write(_BINARY_END)

    def rows_at_once(
        self, connection: Connection, statement: Executable, each_values: Sequence[dict[str, Any]]
    ) -> list[Any]:
        # a pipeline sends all statements in one round trip: waiting for replies is what costs
        compiled = _compiled(statement, connection.dialect)
        driver = driver_of(connection)
        # around a single statement a pipeline takes more CPU than the statement
        with driver.pipeline() if len(each_values) > 1 else nullcontext():
            cursors = [driver.execute(compiled.string, compiled.construct_params(values)) for values in each_values]
        return [cursor.fetchone() for cursor in cursors]

    def execute_raw(self, connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Any]:
        # binary: bytes as they are, not as twice as many hexadecimal digits
        with driver_of(connection).cursor(binary=True) as cursor:
            # planned each time: a plan made while the table was small would scan all of it when it is large
            cursor.execute(statement, values, prepare=False)
            return list(cursor.fetchall()) if cursor.description else []

    def insert_or_ignore(self, table: type[Any], *, index: Sequence[str] | None = None) -> Any:
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=index)

    def lock_name(self, connection: Connection, name: str) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def may_upgrade(self, connection: Connection) -> bool:
        _require_rights(connection)
        # of the transaction, not of the session: a pooler may give the session to another client
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # a role's own is meant for its queries
        return bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK}))

    def was_committed(self, connection: Connection, transaction: str) -> bool:
        status = connection.scalar(text("SELECT pg_xact_status(CAST(:id AS xid8))"), {"id": transaction})
        if status == "in progress":
            raise DatabaseUnavailable("the database has not yet noticed that a connection was lost")
        return bool(status == "committed")

    def oldest_transaction(self, connection: Connection) -> str | None:
        oldest = connection.execute(_OLDEST_TRANSACTION).first()
        return f"the oldest transaction is {oldest.seconds} s old (process {oldest.pid})" if oldest else None

    def server_facts(self, connection: Connection) -> ServerFacts:
        number = int(connection.scalar(text("SHOW server_version_num")) or 0)
        answers = f"PostgreSQL {connection.scalar(text('SHOW server_version'))} answers"
        if number < _OLDEST_TESTED:
            return ServerFacts(f"{answers}, older than what is tested", "upgrade to PostgreSQL 14+")
        return ServerFacts(answers)

    def connections(self, connection: Connection) -> ServerConnections | None:
        row = connection.execute(_CONNECTIONS).one()
        return ServerConnections(int(row.used), int(row.allowed), is_pooled(connection))


@lru_cache(maxsize=16)
def _compiled(statement: Any, dialect: Any) -> Any:
    return statement.compile(dialect=dialect)


_OLDEST_TRANSACTION = text("""
    SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds FROM pg_stat_activity
    WHERE xact_start IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
    ORDER BY xact_start LIMIT 1
""")

#: Connections reserved for superusers are subtracted; the limits of the database and of the role apply too.
_CONNECTIONS = text("""
    SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
           least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true)::int, 0),
                 (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
                 (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)) AS allowed
""")

_RIGHTS = text("""
    SELECT quote_ident(current_user) AS me, quote_ident(current_schema()) AS schema,
           coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
           (SELECT tableowner FROM pg_tables WHERE tablename = 'alembic_version' AND schemaname = current_schema()
            AND NOT pg_has_role(tableowner, 'USAGE')) AS owner
""")


def _require_rights(connection: Connection) -> None:
    rights = connection.execute(_RIGHTS).one()
    if not rights.may_create:
        schema = rights.schema or "public"
        raise DatabaseUnavailable(
            f"{rights.me} may not make tables in the schema {schema}: let the database's owner run "
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {rights.me}"
        )
    if rights.owner is not None:
        raise DatabaseUnavailable(
            f"the tables belong to {rights.owner}, and {rights.me} may not change them: "
            f"run `labelmill db upgrade` as {rights.owner}"
        )
