"""SQLite: one writer at a time, the processes of one machine."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Executable, text
from sqlalchemy.dialects import sqlite as sqlalchemy_sqlite
from sqlalchemy.engine import Connection, Engine

from labelmill.core.database.dialects.base import Dialect, S, ServerFacts, driver_of, quoted
from labelmill.core.database.dialects.sqlite_connections import BUSY_TIMEOUT_MS, database_file, open_sqlite
from labelmill.core.database.faults import translating_errors

_LONG_LOG_BYTES = 256 << 20
_LOG_PATIENCE_MS = 1000
_NAMED = re.compile(r"%\((\w+)\)s")


class Sqlite(Dialect):
    """SQLite by Python's own module."""

    name = "sqlite"
    locks_rows = False
    copies_binary = False
    aggregates_bytes = False
    serves_one_machine = True

    def open(self, url: URL, *, max_connections: int, create_folder: bool) -> Engine:
        del max_connections
        return open_sqlite(url, create_folder=create_folder)

    def file_of(self, url: URL) -> Path | None:
        return database_file(url)

    def choose(self, *, sqlite: S, postgres: S) -> S:
        del postgres
        return sqlite

    def bulk_insert(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({quoted(columns)}) VALUES ({marks})"  # noqa: S608 - names of ours
        driver_of(connection).executemany(statement, rows)

    def copy_binary(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Iterable[bytes], count: int
    ) -> None:
        raise NotImplementedError("SQLite has no COPY: ask `copies_binary` first")

    def rows_at_once(
        self, connection: Connection, statement: Executable, each_values: Sequence[dict[str, Any]]
    ) -> list[Any]:
        return [connection.execute(statement, values).first() for values in each_values]

    def execute_raw(self, connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Any]:
        return list(driver_of(connection).execute(_NAMED.sub(r":\1", statement), values))

    def insert_or_ignore(self, table: type[Any], *, index: Sequence[str] | None = None) -> Any:
        return sqlalchemy_sqlite.insert(table).on_conflict_do_nothing(index_elements=index)

    def lock_name(self, connection: Connection, name: str) -> None:
        """Nothing to do: this transaction is the only writer."""

    def may_upgrade(self, connection: Connection) -> bool:
        del connection
        return True  # this transaction is the only writer

    def was_committed(self, connection: Connection, transaction: str) -> bool:
        raise NotImplementedError("SQLite has no transaction ids: a commit's result is always known")

    def shorten_log(self, engine: Engine, *, max_bytes: int | None = None) -> None:
        """Truncate the write-ahead log once it has grown large.

        SQLite does so itself, but only in a moment without readers, and in a busy stack there is none for hours: a
        million vectors left a log larger than the database. This waits for the readers there are, and tries again
        another time.
        """
        if not engine.url.database:
            return
        log = Path(f"{engine.url.database}-wal")
        if not log.exists() or log.stat().st_size <= (_LONG_LOG_BYTES if max_bytes is None else max_bytes):
            return
        with translating_errors(), engine.connect() as connection:
            driver = driver_of(connection)
            (patience_ms,) = driver.execute("PRAGMA busy_timeout").fetchone()
            driver.execute(f"PRAGMA busy_timeout = {_LOG_PATIENCE_MS}")
            try:
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                driver.execute(f"PRAGMA busy_timeout = {patience_ms}")

    def server_facts(self, connection: Connection) -> ServerFacts:
        mode = connection.scalar(text("PRAGMA journal_mode"))
        answers = f"SQLite {connection.scalar(text('SELECT sqlite_version()'))} answers, in"
        if mode == "wal":
            return ServerFacts(f"{answers} WAL mode")
        return ServerFacts(
            f"{answers} {mode} mode: readers and writers wait for each other",
            "keep the database on a local disk, where WAL works",
        )

    def is_locked(self, engine: Engine, patience_s: float) -> bool:
        with engine.connect() as connection:
            driver = driver_of(connection)
            driver.execute(f"PRAGMA busy_timeout = {patience_s * 1000:.0f}")
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return "locked" in str(error)
            else:
                driver.execute("ROLLBACK")
                return False
            finally:
                driver.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
