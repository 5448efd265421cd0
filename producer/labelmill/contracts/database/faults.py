"""What a database's faults mean to whoever asked it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from labelmill.contracts.errors import DatabaseOutdated, DatabaseUnavailable

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
