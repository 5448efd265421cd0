"""The database: reachable, of the right version, to be written to by this user, and what time it has."""

from __future__ import annotations

import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, text
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseNewer, DatabaseOutdated, DatabaseUnsuitable, LabelmillError
from labelmill.core.database import (
    BUSY_TIMEOUT_MS,
    HEARTBEAT_S,
    check_tables,
    connect_to_existing,
    current_revision,
    db_now,
    reading,
    require_this_machine,
    writing,
)
from labelmill.core.database.tables import LockRow
from labelmill.core.settings import Settings
from labelmill.doctor.checks import Check, failed, ok, warning
from labelmill.doctor.connections import ServerConnections, look_at_connections

UNREACHABLE = 7
_OLDEST_POSTGRES = 140000
_LOCKED_S = 5.0  #: Transactions of Labelmill's take a fraction of it.
_REACH = "start the database, or correct LABELMILL_DATABASE_URL"


@dataclass
class DatabaseLook:
    """`engine`: the rest that needs the database can be looked at."""

    checks: list[Check]
    engine: Engine | None = None
    ahead_s: float | None = None  #: Its clock over ours.
    connections: ServerConnections | None = None


def look_at_database(settings: Settings) -> DatabaseLook:
    """Ask the database. Never raises a LabelmillError."""
    look = DatabaseLook([])
    engine = None
    try:
        engine = connect_to_existing(settings)
        _look(engine, look)
    except DatabaseOutdated as error:
        remedy = "upgrade this Labelmill" if isinstance(error, DatabaseNewer) else "run `labelmill db upgrade`"
        if engine is None and not settings.database_url:
            remedy = "go to the folder of your `labelmill up`, or name its data folder in LABELMILL_DATA_DIR"
        look.checks.append(failed("database tables", error.message, remedy, UNREACHABLE))
    except LabelmillError as error:
        name = "database machines" if isinstance(error, DatabaseUnsuitable) else "database writes"
        look.checks.append(_failure(name if look.checks else "database", error))
    else:
        look.engine = engine
    finally:
        if engine is not None and look.engine is None:
            engine.dispose()
    return look


def _look(engine: Engine, look: DatabaseLook) -> None:
    with reading(engine) as connection:
        before = time.time()
        theirs = float(connection.scalar(select(db_now())) or 0)
        look.ahead_s = theirs - (before + time.time()) / 2
        look.checks.append(_server(connection))
        look.connections = look_at_connections(connection)
    if engine.dialect.name == "sqlite" and _is_locked(engine):
        look.checks[:] = [
            failed(
                "database",
                f"another process has kept SQLite from being written to for {_LOCKED_S:.0f} s",
                "end what holds it: `fuser` or `lsof` on the file tell which process that is",
                UNREACHABLE,
            )
        ]
    check_tables(engine)
    require_this_machine(engine, watch_s=2 * HEARTBEAT_S)
    look.checks.append(ok("database tables", f"at version {current_revision(engine)}, as this Labelmill needs them"))
    if look.checks[0].exit_code != UNREACHABLE:
        _write(engine)
        look.checks.append(ok("database writes", "a row was written and removed"))


def _failure(name: str, error: LabelmillError) -> Check:
    """What is wrong stands before the colon and what to do behind it, where more is known than the driver's words."""
    summary, _, remedy = error.message.partition(": ")
    if remedy and (isinstance(error, DatabaseUnsuitable) or not summary.endswith("cannot be used")):
        return failed(name, summary, remedy, UNREACHABLE)
    return failed(name, error.message, _REACH, UNREACHABLE)


def _write(engine: Engine) -> None:
    # committed: a disk that is full, or a replica that only looks like a primary, is noticed by nothing less
    name = f"doctor {secrets.token_hex(8)}"
    with writing(engine) as connection:
        connection.execute(insert(LockRow).values(name=name, until=0.0))
    with writing(engine) as connection:
        connection.execute(delete(LockRow).where(LockRow.name == name))


def _is_locked(engine: Engine) -> bool:
    driver: Any
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.execute(f"PRAGMA busy_timeout = {_LOCKED_S * 1000:.0f}")
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            return "locked" in str(error)
        else:
            driver.execute("ROLLBACK")
            return False
        finally:
            driver.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def _server(connection: Connection) -> Check:
    if connection.dialect.name == "sqlite":
        mode = connection.scalar(text("PRAGMA journal_mode"))
        version = connection.scalar(text("SELECT sqlite_version()"))
        if mode == "wal":
            return ok("database", f"SQLite {version} answers, in WAL mode")
        return warning(
            "database",
            f"SQLite {version} answers, in {mode} mode: readers and writers wait for each other",
            "keep the database on a local disk, where WAL works",
        )
    number = int(connection.scalar(text("SHOW server_version_num")) or 0)
    version = connection.scalar(text("SHOW server_version"))
    if number < _OLDEST_POSTGRES:
        return warning(
            "database", f"PostgreSQL {version} answers, older than what is tested", "upgrade to PostgreSQL 14+"
        )
    return ok("database", f"PostgreSQL {version} answers")
