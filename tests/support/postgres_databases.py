"""PostgreSQL databases that tests use one after the other: to empty one costs a fifth of making one and dropping it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from labelmill_ops.embedded_postgres import EmbeddedPostgres

_OF_USERS = 16384  #: PostgreSQL's own objects have smaller numbers.
_numbers = itertools.count(1)

#: What a test may change besides rows: the definition of tables, rights, settings, functions, statistics for plans.
_DEFINITION = f"""
    SELECT (SELECT array[count(*), max(oid)::bigint, count(relacl), count(*) FILTER (WHERE reltuples > 0)]
            FROM pg_class WHERE oid >= {_OF_USERS}),
           (SELECT array[count(*), max(xmin::text::bigint)] FROM pg_attribute WHERE attrelid >= {_OF_USERS}),
           (SELECT array[count(*), max(xmin::text::bigint)] FROM pg_constraint WHERE oid >= {_OF_USERS}),
           (SELECT array[count(*), max(xmin::text::bigint)] FROM pg_trigger WHERE oid >= {_OF_USERS}),
           (SELECT array[count(*), max(xmin::text::bigint)] FROM pg_proc WHERE oid >= {_OF_USERS}),
           (SELECT array[count(*), max(xmin::text::bigint)] FROM pg_namespace),
           (SELECT array[count(*)] FROM pg_largeobject_metadata),
           (SELECT array[count(*)] FROM pg_statistic WHERE starelid >= {_OF_USERS}),
           (SELECT array[count(*)] FROM pg_db_role_setting),
           (SELECT array[xmin::text::bigint] FROM pg_database WHERE datname = current_database())
"""
_END_OTHERS = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_RESTART_SEQUENCES = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
    FROM pg_sequences WHERE last_value IS NOT NULL
"""


class PostgresDatabases:
    """Copies of a template of one server."""

    def __init__(self, server: EmbeddedPostgres, template: str) -> None:
        self._server, self._template = server, template
        self._definitions: dict[str, object] = {}  #: Of each database that waits for a test.
        with psycopg.connect(server.url(template)) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            ).fetchall()
            self._version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        self._with_rows = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for (name,) in tables)

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The name of a database as the template is, for one test."""
        if self._definitions:
            name, definition = self._definitions.popitem()
        else:
            name = f"test_{next(_numbers)}"
            create_database(self._server, name, self._template)
            with psycopg.connect(self._server.url(name)) as connection:
                definition = connection.execute(_DEFINITION).fetchone()
        yield name
        if self._is_empty_again(name, definition):
            self._definitions[name] = definition
        else:
            self._server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _is_empty_again(self, name: str, definition: object) -> bool:
        """Delete the rows of a test. False: the test changed more than rows."""
        try:
            # a test's variables (PGOPTIONS, PGCLIENTENCODING) may still be set
            url = self._server.url(name)
            with psycopg.connect(url, autocommit=True, client_encoding="utf8", options="") as connection:
                connection.execute(_END_OTHERS)
                if names := connection.execute(self._with_rows.encode()).fetchall():
                    connection.execute(f"TRUNCATE {', '.join(table for (table,) in names)} CASCADE".encode())
                connection.execute(_RESTART_SEQUENCES)
                version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
                return version == self._version and connection.execute(_DEFINITION.encode()).fetchone() == definition
        except psycopg.Error:
            return False


def create_database(server: EmbeddedPostgres, name: str, template: str) -> None:
    # from version 15 on a copy is written to the log page by page, unless said otherwise: three times the CPU
    strategy = "STRATEGY FILE_COPY" if server.version >= 15 else ""
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
