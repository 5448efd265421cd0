"""The database: reachable, of the right version, and what time it has."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.database import BUSY_TIMEOUT_MS, check_tables, connect, current_revision, db_now, reading
from labelmill.contracts.errors import DatabaseOutdated, LabelmillError
from labelmill.doctor.checks import Check, failed, ok, warning

UNREACHABLE = 7
_OLDEST_POSTGRES = 140000
_LOCKED_S = 5.0  #: Transactions of Labelmill's take a fraction of it.


@dataclass
class DatabaseLook:
    """`engine`: the rest that needs the database can be looked at."""

    checks: list[Check]
    engine: Engine | None = None
    ahead_s: float | None = None  #: Its clock over ours.


def look_at_database(url: str) -> DatabaseLook:
    """Ask the database. Never raises a LabelmillError."""
    engine = None
    try:
        engine = connect(url)
        with reading(engine) as connection:
            before = time.time()
            theirs = float(connection.scalar(select(db_now())) or 0)
            ahead_s = theirs - (before + time.time()) / 2
            server = _server(connection)
        if engine.dialect.name == "sqlite" and _is_locked(engine):
            server = failed(
                "database", f"another process has kept SQLite from being written to for {_LOCKED_S:.0f} s",
                "end what holds it: `fuser` or `lsof` on the file tell which process that is", UNREACHABLE,
            )  # fmt: skip
    except LabelmillError as error:
        if engine is not None:
            engine.dispose()
        remedy = "start the database, or correct LABELMILL_DATABASE_URL"
        return DatabaseLook([failed("database", error.message, remedy, UNREACHABLE)])
    try:
        check_tables(engine)
        tables = ok("database tables", f"at version {current_revision(engine)}, as this Labelmill needs them")
    except DatabaseOutdated as error:
        engine.dispose()
        remedy = "upgrade this Labelmill" if "newer" in error.message else "run `labelmill db upgrade`"
        return DatabaseLook([server, failed("database tables", error.message, remedy, UNREACHABLE)], None, ahead_s)
    except LabelmillError as error:
        engine.dispose()
        return DatabaseLook(
            [server, failed("database tables", error.message, "see the database's own log", UNREACHABLE)]
        )
    return DatabaseLook([server, tables], engine, ahead_s)


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
            "database", f"SQLite {version} answers, in {mode} mode: readers and writers wait for each other",
            "keep the database on a local disk, where WAL works",
        )  # fmt: skip
    number = int(connection.scalar(text("SHOW server_version_num")) or 0)
    version = connection.scalar(text("SHOW server_version"))
    if number < _OLDEST_POSTGRES:
        return warning(
            "database", f"PostgreSQL {version} answers, older than what is tested", "upgrade to PostgreSQL 14+"
        )
    return ok("database", f"PostgreSQL {version} answers")
