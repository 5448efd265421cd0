"""Connections for reading and for writing, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError

from labelmill.contracts.errors import DatabaseOutdated, InvalidInput
from labelmill.core.database.dialects import dialect_named, dialect_of
from labelmill.core.database.faults import outdated, translating_errors
from labelmill.core.database.forked import has_own_connections_after_fork
from labelmill.core.settings import Settings

#: PostgreSQL's connections of one process, at most: docs/database.md has the sum for a fleet.
PRODUCER_CONNECTIONS = 8
DEAD_LETTER_CONNECTIONS = 1
RECOVERY_CONNECTIONS = 1
ALIVE_CONNECTIONS = 1
WORKER_CONNECTIONS = 16  #: Includes those of dead letters, recovery and heartbeats.


def connect(url: str, *, max_connections: int = PRODUCER_CONNECTIONS, create_folder: bool = True) -> Engine:
    """An engine for `url`; opens no connection yet. The folder of a SQLite file is made, unless said otherwise.

    Raises InvalidInput for a URL that cannot be read, DatabaseUnsuitable for a file on a network file system.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput("the database URL cannot be read; write sqlite:///file.db or postgresql://…") from error
    dialect = dialect_named(parsed.get_backend_name())
    engine = dialect.open(parsed, max_connections=max_connections, create_folder=create_folder)
    return has_own_connections_after_fork(engine)


def connect_to_existing(settings: Settings, *, max_connections: int = PRODUCER_CONNECTIONS) -> Engine:
    """An engine for the configured database; makes no file or folder. Raises as `connect`, and DatabaseOutdated where
    there is none."""
    engine = connect(settings.sql_url, max_connections=max_connections, create_folder=False)
    file = dialect_of(engine).file_of(engine.url)
    if file is None or not _is_missing(file):
        return engine
    if settings.database_url:
        raise outdated(engine)
    raise DatabaseOutdated(
        f"no Labelmill runs in this folder: {settings.data_path.absolute()} holds no database. Go to the folder of "
        "your `labelmill up`, or name its data folder with --data-dir or LABELMILL_DATA_DIR, or a database with "
        "LABELMILL_DATABASE_URL; `labelmill up` starts a new stack here"
    )


def _is_missing(file: Path) -> bool:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # connecting reports what is wrong
    return False


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only connection with one consistent snapshot, never blocked by writers. Raises DatabaseUnavailable."""
    with (
        translating_errors(engine),
        engine.connect().execution_options(read_only=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that commits at the end. Raises DatabaseUnavailable."""
    with translating_errors(engine), engine.begin() as connection:
        connection.info.pop(_AFTER_COMMIT, None)  # a transaction that was rolled back may have left some
        yield connection
        acts: list[Callable[[], None]] = connection.info.pop(_AFTER_COMMIT, [])
    for act in acts:
        act()


def after_commit(connection: Connection, act: Callable[[], None]) -> None:
    """Within `writing`: call `act` after the transaction has committed; not at all if it is rolled back."""
    connection.info.setdefault(_AFTER_COMMIT, []).append(act)


_AFTER_COMMIT = "labelmill_after_commit"
