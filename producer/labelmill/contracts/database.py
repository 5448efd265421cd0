"""Connecting to the database, its clock, and the version of its tables."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Double, create_engine, event, make_url, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from labelmill.contracts.errors import DatabaseOutdated, DatabaseUnavailable, InvalidInput

BUSY_TIMEOUT_MS = 30_000
_UPGRADE_LOCK = 7_140_521  # an advisory lock of PostgreSQL; any fixed number


class db_now(FunctionElement[float]):  # noqa: N801 - reads like an SQL function where it is used
    """Seconds since 1970 by the database's own clock: the only clock that leases trust."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now)
def _postgres_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    return "extract(epoch from clock_timestamp())::double precision"


def connect(url: str, *, pool_size: int = 8) -> Engine:
    """An engine for `url`; opens no connection yet. Raises InvalidInput for a URL that cannot be read."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput("the database URL cannot be read; write sqlite:///file.db or postgresql://…") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(parsed, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True,
                             connect_args={"connect_timeout": 5})  # fmt: skip
    if backend != "sqlite":
        raise InvalidInput(f"the database must be SQLite or PostgreSQL, not {backend}")
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


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


@contextlib.contextmanager
def translating_errors() -> Iterator[None]:
    """Turn a driver's connection faults into DatabaseUnavailable, missing tables into DatabaseOutdated."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if "no such table" in str(error.orig):
            raise outdated() from error
        raise DatabaseUnavailable(f"the database cannot be used: {_first_line(error)}") from error
    except DBAPIError as error:
        if "UndefinedTable" in type(error.orig).__name__:
            raise outdated() from error
        raise


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def outdated() -> DatabaseOutdated:
    return DatabaseOutdated("the database's tables are missing or of another version: run `labelmill db upgrade`")


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("labelmill.contracts") / "migrations"))
    return config


def head_revision() -> str:
    """The version of the tables that this code needs."""
    head = ScriptDirectory.from_config(_alembic()).get_current_head()
    if head is None:
        raise RuntimeError("the distribution holds no migrations")
    return head


def current_revision(engine: Engine) -> str | None:
    """The version of the tables in the database; None when it has none."""
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def check_tables(engine: Engine) -> None:
    """Raise DatabaseOutdated unless the tables are the ones this code needs."""
    if current_revision(engine) != head_revision():
        raise outdated()


def upgrade(engine: Engine) -> None:
    """Bring the tables to this code's version. Does nothing when they are; safe from several processes at once."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
