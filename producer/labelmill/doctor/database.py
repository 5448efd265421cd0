"""Checks of the database: reachable, tables of the right version, writable by this user, its clock."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseNewer, DatabaseOutdated, DatabaseUnsuitable, LabelmillError
from labelmill.contracts.exit_codes import DATABASE_UNUSABLE
from labelmill.core.database import (
    HEARTBEAT_S,
    check_tables,
    connect_to_existing,
    current_revision,
    db_now,
    reading,
    require_only_this_machine,
    writing,
)
from labelmill.core.database.dialects import ServerConnections, dialect_of
from labelmill.core.database.tables import LockRow
from labelmill.core.settings import Settings
from labelmill.doctor.checks import Check, failed, ok, warning

_LOCKED_S = 5.0  #: Transactions of Labelmill's take a fraction of it.
_REACH = "start the database, or correct LABELMILL_DATABASE_URL"


@dataclass
class DatabaseResult:
    """`engine`: other checks that need the database can use it."""

    checks: list[Check]
    engine: Engine | None = None
    ahead_s: float | None = None  #: Its clock over ours.
    connections: ServerConnections | None = None


def check_database(settings: Settings) -> DatabaseResult:
    """Ask the database. Never raises a LabelmillError."""
    result = DatabaseResult([])
    engine = None
    try:
        engine = connect_to_existing(settings)
        _run_checks(engine, result)
    except DatabaseOutdated as error:
        remedy = "upgrade this Labelmill" if isinstance(error, DatabaseNewer) else "run `labelmill db upgrade`"
        if engine is None and not settings.database_url:
            remedy = "go to the folder of your `labelmill up`, or name its data folder in LABELMILL_DATA_DIR"
        result.checks.append(failed("database tables", error.message, remedy, DATABASE_UNUSABLE))
    except LabelmillError as error:
        name = "database machines" if isinstance(error, DatabaseUnsuitable) else "database writes"
        result.checks.append(_failure(name if result.checks else "database", error))
    else:
        result.engine = engine
    finally:
        if engine is not None and result.engine is None:
            engine.dispose()
    return result


def _run_checks(engine: Engine, result: DatabaseResult) -> None:
    with reading(engine) as connection:
        before = time.time()
        theirs = float(connection.scalar(select(db_now())) or 0)
        result.ahead_s = theirs - (before + time.time()) / 2
        result.checks.append(_server(connection))
        result.connections = dialect_of(connection).connections(connection)
    if dialect_of(engine).is_locked(engine, _LOCKED_S):
        result.checks[:] = [
            failed(
                "database",
                f"another process has kept SQLite from being written to for {_LOCKED_S:.0f} s",
                "end what holds it: `fuser` or `lsof` on the file tell which process that is",
                DATABASE_UNUSABLE,
            )
        ]
    check_tables(engine)
    require_only_this_machine(engine, watch_s=2 * HEARTBEAT_S)
    result.checks.append(ok("database tables", f"at version {current_revision(engine)}, as this Labelmill needs them"))
    if result.checks[0].exit_code != DATABASE_UNUSABLE:
        _write(engine)
        result.checks.append(ok("database writes", "a row was written and removed"))


def _failure(name: str, error: LabelmillError) -> Check:
    """In errors with a known remedy the fault is before the colon and the remedy after it."""
    summary, _, remedy = error.message.partition(": ")
    if remedy and (isinstance(error, DatabaseUnsuitable) or not summary.endswith("cannot be used")):
        return failed(name, summary, remedy, DATABASE_UNUSABLE)
    return failed(name, error.message, _REACH, DATABASE_UNUSABLE)


def _write(engine: Engine) -> None:
    # committed, because only a commit detects a full disk or a replica that resembles a primary
    name = f"doctor {secrets.token_hex(8)}"
    with writing(engine) as connection:
        connection.execute(insert(LockRow).values(name=name, lease_until=0.0))
    with writing(engine) as connection:
        connection.execute(delete(LockRow).where(LockRow.name == name))


def _server(connection: Connection) -> Check:
    facts = dialect_of(connection).server_facts(connection)
    return warning("database", facts.summary, facts.remedy) if facts.remedy else ok("database", facts.summary)
