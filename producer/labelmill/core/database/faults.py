"""What a database driver's errors mean to the caller.

Errors are recognised by codes, not by their messages: a server's messages may be in any language.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from labelmill.contracts.errors import DatabaseOutdated, DatabaseUnavailable, LabelmillError

_DRIVER_FAULTS = {
    (driver, name) for driver in ("psycopg", "sqlite3") for name in ("OperationalError", "InterfaceError")
}
_NO_TABLE, _FORBIDDEN, _READ_ONLY, _DISK_FULL = "42P01", "42501", "25006", "53100"


@contextlib.contextmanager
def translating_errors(engine: Engine | None = None) -> Iterator[None]:
    """Turn a driver's connection faults into DatabaseUnavailable, missing tables into DatabaseOutdated. `engine`: its
    user is named in errors about rights."""
    user = _quoted(engine.url.username) if engine and engine.url.username else "this user"
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailable("the database cannot be used: every connection waits for an answer") from error
    except DBAPIError as error:
        meaning = _meaning_of(error.orig, user)
        # without a statement it failed while connecting; a plain DatabaseError is SQLite's word for a broken file
        if meaning is None and (
            isinstance(error, OperationalError | InterfaceError)
            or error.statement is None
            or type(error) is DatabaseError
        ):
            meaning = DatabaseUnavailable(f"the database cannot be used: {_first_line(error.orig)}")
        if meaning is None:
            raise
        raise meaning from error
    except Exception as error:
        # COPY and `executemany` speak to the driver past SQLAlchemy, and raise its own errors
        kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
        meaning = _meaning_of(error, user) if any(module in ("psycopg", "sqlite3") for module, _ in kinds) else None
        if meaning is None and kinds & _DRIVER_FAULTS:
            meaning = DatabaseUnavailable(f"the database cannot be used: {_first_line(error)}")
        if meaning is None:
            raise
        raise meaning from error


def _meaning_of(error: BaseException | None, user: str) -> LabelmillError | None:
    """The error to raise for a driver's error that has a known remedy; None: there is none."""
    if getattr(error, "sqlite_errorname", None):
        return _meaning_of_sqlite(error)
    state = getattr(error, "sqlstate", None)
    if state == _NO_TABLE:
        return outdated()
    if state == _READ_ONLY:
        return DatabaseUnavailable(
            "the database is read-only, as a replica is: name the primary server in LABELMILL_DATABASE_URL, "
            "or wait until the failover has ended"
        )
    if state == _DISK_FULL:
        return DatabaseUnavailable("the database's disk is full: make room on its host")
    if state == _FORBIDDEN:
        return DatabaseUnavailable(
            f"the database forbids it ({_first_line(error)}): let the tables' owner run {_grants_for(user)}"
        )
    return None


def _meaning_of_sqlite(error: BaseException | None) -> LabelmillError | None:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name == "SQLITE_ERROR" and "no such table" in str(error):  # SQLite's messages are always English
        return outdated()
    if name.startswith("SQLITE_READONLY"):
        return DatabaseUnavailable(
            "the database is read-only: let this user write to its file and to the folder around it"
        )
    if name == "SQLITE_FULL":
        return DatabaseUnavailable("the database's disk is full (database or disk is full): make room on it")
    return None


def _grants_for(user: str) -> str:
    """The statements that give a user access to tables of another user."""
    return (
        f"GRANT USAGE ON SCHEMA public TO {user}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}"
    )


def _quoted(name: str) -> str:
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def outdated(engine: Engine | None = None) -> DatabaseOutdated:
    """The error for missing tables; it names the engine's database where an engine is given."""
    where = f" (the database is {engine.url.render_as_string(hide_password=True)})" if engine else ""
    return DatabaseOutdated(f"the database's tables are missing: run `labelmill db upgrade`{where}")


def data_error_message(error: BaseException) -> str | None:
    """The driver's message about a value that its database cannot store: NUL, too long, out of range. None: the error
    is of another kind."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(cause).__mro__}
    return _first_line(cause) if kinds & {("psycopg", "DataError"), ("sqlite3", "DataError")} else None
