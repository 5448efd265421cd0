"""Connecting to the database, its clock, and the version of its tables."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Double, create_engine, event, inspect, make_url, or_, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from labelmill.contracts.errors import DatabaseOutdated, DatabaseUnavailable, InvalidInput

BUSY_TIMEOUT_MS = 30_000
#: A network that drops packets in silence is noticed within 30 s, under a statement or between two.
_POSTGRES_CONNECTION = {
    "connect_timeout": 5, "tcp_user_timeout": 30_000,
    "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4,
}  # fmt: skip
#: The server too: a client that vanished in silence would else hold its locks for the two hours of Linux' default.
_POSTGRES_SERVER = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 4,
                    "tcp_user_timeout": 30_000}  # fmt: skip
_one_upgrade = threading.Lock()
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


#: A moment further ahead than these was written before the clock was set back. No look at a job is put off so far …
FAR_S = 900.0
FAR_LEASE_S = 300.0  #: … no lease lasts so long …
FAR_CHUNK_S = 120.0  #: … and no chunk is put off so far.


def has_passed(
    moment: ColumnElement[float | None] | InstrumentedAttribute[float | None],
    *,
    ago_s: float = 0.0,
    far_s: float = FAR_LEASE_S,
) -> ColumnElement[bool]:
    """Whether a moment by the database's clock lies behind, by `ago_s` at least. One that is further ahead than `far_s`
    was written before the clock was set back, and counts as passed."""
    return or_(moment < db_now() - ago_s, moment > db_now() + far_s)


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


_DRIVER_FAULTS = {
    (driver, name) for driver in ("psycopg", "sqlite3") for name in ("OperationalError", "InterfaceError")
}


@contextlib.contextmanager
def translating_errors() -> Iterator[None]:
    """Turn a driver's connection faults into DatabaseUnavailable, missing tables into DatabaseOutdated."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if "no such table" in str(error.orig):
            raise outdated() from error
        raise DatabaseUnavailable(f"the database cannot be used: {_first_line(error)}") from error
    except PoolTimeoutError as error:
        raise DatabaseUnavailable("the database cannot be used: every connection waits for an answer") from error
    except DBAPIError as error:
        if "UndefinedTable" in type(error.orig).__name__:
            raise outdated() from error
        # without a statement it failed while connecting; a plain DatabaseError is SQLite's word for a broken file
        if error.statement is None or type(error) is DatabaseError:
            raise DatabaseUnavailable(f"the database cannot be used: {_first_line(error)}") from error
        raise
    except Exception as error:
        # COPY and `executemany` speak to the driver past SQLAlchemy, and raise its own errors
        if {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__} & _DRIVER_FAULTS:
            raise DatabaseUnavailable(f"the database cannot be used: {error}") from error
        raise


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def outdated(engine: Engine | None = None) -> DatabaseOutdated:
    """Some table is missing, in the engine's database where it is given."""
    where = f" (the database is {engine.url.render_as_string(hide_password=True)})" if engine else ""
    return DatabaseOutdated(f"the database's tables are missing: run `labelmill db upgrade`{where}")


_MIGRATIONS = files("labelmill.contracts") / "migrations"


_LINK = re.compile(r'^down_revision\b.*= (?:None|"(\w+)")$', re.MULTILINE)


def revisions() -> list[str]:
    """The versions of the tables that this code knows, oldest first. Each file's name begins with its version and names
    the one before; files are read as text, for Alembic is slow to import and every command asks."""
    files_ = [file for file in (_MIGRATIONS / "versions").iterdir() if file.name.endswith(".py")]
    links = {file.name.partition("_")[0]: _LINK.search(file.read_text()) for file in files_}
    after = {link[1] if link else None: version for version, link in links.items()}
    found: list[str] = []
    while (version := after.get(found[-1] if found else None)) is not None:
        found.append(version)
    return found


def head_revision() -> str:
    """The version of the tables that this code needs."""
    return revisions()[-1]


def current_revision(engine: Engine) -> str | None:
    """The version of the tables in the database; None when it has none."""
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def check_tables(engine: Engine) -> None:
    """Raise DatabaseOutdated unless the tables are the ones this code needs."""
    current, needed = current_revision(engine), head_revision()
    if current == needed:
        return
    if current is None:
        raise outdated(engine)  # most often somebody is in another folder than their data
    _refuse_newer(current)
    raise DatabaseOutdated(
        f"the database's tables are of version {current}, older than {needed}: run `labelmill db upgrade`"
    )


def _refuse_newer(current: str | None) -> None:
    if current is not None and current not in revisions():
        raise DatabaseOutdated(
            f"the database's tables are of version {current}, which a newer Labelmill made: upgrade this one"
        )


def upgrade(engine: Engine) -> None:
    """Bring the tables to this code's version. Does nothing when they are; safe from several processes at once.

    Raises DatabaseOutdated for tables that a newer Labelmill made, DatabaseUnavailable.
    """
    from alembic import command  # noqa: PLC0415 - slow to import, and every command imports this module
    from alembic.config import Config  # noqa: PLC0415

    _refuse_newer(current_revision(engine))
    with _one_upgrade, writing(engine) as connection:  # Alembic keeps its state in the process
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
