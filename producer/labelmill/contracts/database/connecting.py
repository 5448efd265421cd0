"""Connections for reading and for writing, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import make_url
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError

from labelmill.contracts.database.faults import translating_errors
from labelmill.contracts.database.postgres import open_postgres
from labelmill.contracts.database.sqlite import open_sqlite
from labelmill.contracts.errors import InvalidInput

#: PostgreSQL's connections of one process, at most: docs/database.md has the sum for a fleet.
PRODUCER_CONNECTIONS = 8
WORKER_CONNECTIONS = 16


def connect(url: str, *, max_connections: int = PRODUCER_CONNECTIONS) -> Engine:
    """An engine for `url`; opens no connection yet. Raises InvalidInput for a URL that cannot be read, and
    DatabaseUnsuitable for a SQLite file on a network file system."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput("the database URL cannot be read; write sqlite:///file.db or postgresql://…") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return open_postgres(parsed, max_connections)
    if backend != "sqlite":
        raise InvalidInput(f"the database must be SQLite or PostgreSQL, not {backend}")
    return open_sqlite(parsed)


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
