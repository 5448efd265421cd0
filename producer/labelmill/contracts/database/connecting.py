"""Connections for reading and for writing, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, make_url
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError

from labelmill.contracts.database.faults import translating_errors
from labelmill.contracts.errors import DatabaseUnavailable, InvalidInput

BUSY_TIMEOUT_MS = 30_000
#: A network that drops packets in silence is noticed within 30 s, under a statement or between two.
_POSTGRES_CONNECTION = {
    "connect_timeout": 5, "tcp_user_timeout": 30_000,
    "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4,
}  # fmt: skip
#: The server too: a client that vanished in silence would else hold its locks for the two hours of Linux' default.
_POSTGRES_SERVER = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 4,
                    "tcp_user_timeout": 30_000}  # fmt: skip


def connect(url: str, *, pool_size: int = 8) -> Engine:
    """An engine for `url`; opens no connection yet. Raises InvalidInput for a URL that cannot be read."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput("the database URL cannot be read; write sqlite:///file.db or postgresql://…") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True,
                               connect_args=dict(_POSTGRES_CONNECTION))  # fmt: skip
        event.listen(engine, "connect", _let_the_server_notice)
        return engine
    if backend != "sqlite":
        raise InvalidInput(f"the database must be SQLite or PostgreSQL, not {backend}")
    if parsed.database:
        folder = Path(parsed.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnavailable(f"the database's folder {folder} cannot be made: {error.strerror}") from error
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _let_the_server_notice(connection: Any, record: object) -> None:
    del record
    was, connection.autocommit = connection.autocommit, True
    connection.execute(";".join(f"SET {name} = {value}" for name, value in _POSTGRES_SERVER.items()))
    connection.autocommit = was


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    del record
    connection.isolation_level = None  # BEGIN is ours, see _begin_immediate
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for the write lock: take it at once. Readers say
    # `execution_options(read_only=True)` and never wait.
    read_only = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reads alone: one consistent picture, waits for no writer. Raises DatabaseUnavailable."""
    with translating_errors(), engine.connect().execution_options(read_only=True) as connection, connection.begin():
        yield connection


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that commits at the end. Raises DatabaseUnavailable."""
    with translating_errors(), engine.begin() as connection:
        yield connection


_LONG_LOG_BYTES = 256 << 20
_LOG_PATIENCE_MS = 1000


def shorten_log(engine: Engine, *, most_bytes: int = _LONG_LOG_BYTES) -> None:
    """Cut SQLite's write-ahead log off once it has grown long.

    SQLite does so itself, but only in a moment without readers, and in a busy stack there is none for hours: a million
    vectors left a log larger than the database. This waits for the readers there are, and tries again another time.
    """
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return
    log = Path(f"{engine.url.database}-wal")
    if not log.exists() or log.stat().st_size <= most_bytes:
        return
    driver: Any
    with translating_errors(), engine.connect() as connection:
        driver = connection.connection.driver_connection
        (patience_ms,) = driver.execute("PRAGMA busy_timeout").fetchone()
        driver.execute(f"PRAGMA busy_timeout = {_LOG_PATIENCE_MS}")
        try:
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            driver.execute(f"PRAGMA busy_timeout = {patience_ms}")
