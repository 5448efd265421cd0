"""The fastest way to put many rows into a table: COPY on PostgreSQL, one prepared statement on SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine import Connection


def bulk_insert(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert `rows` (tuples in the order of `columns`) within the connection's transaction."""
    names = ", ".join(f'"{column}"' for column in columns)
    driver = _driver(connection)
    if connection.dialect.name == "postgresql":
        with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    marks = ", ".join("?" * len(columns))
    driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - names of ours, never input


#: What begins and ends PostgreSQL's binary COPY: signature, no flags, no extension; a row of -1 fields.
_BINARY_HEAD, _BINARY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def copy_binary(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[bytes]) -> None:
    """Insert rows that are in PostgreSQL's binary COPY format already, some to a piece, within the connection's
    transaction."""
    names = ", ".join(f'"{column}"' for column in columns)
    statement = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)"
    with _driver(connection).cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_BINARY_HEAD)
        for some in rows:
            copy.write(some)
        copy.write(_BINARY_END)


def rows_at_once(connection: Connection, statement: Executable, each_values: Sequence[dict[str, Any]]) -> list[Any]:
    """Execute a statement that returns one row or none with each of several parameter sets; None: no row.

    PostgreSQL gets them all in one go and answers in one: the waiting is what costs.
    """
    if connection.dialect.name != "postgresql":
        return [connection.execute(statement, values).first() for values in each_values]
    compiled = _compiled(statement, connection.dialect)
    driver = _driver(connection)
    with driver.pipeline():
        cursors = [driver.execute(compiled.string, compiled.construct_params(values)) for values in each_values]
    return [cursor.fetchone() for cursor in cursors]


@lru_cache(maxsize=16)
def _compiled(statement: Any, dialect: Any) -> Any:
    return statement.compile(dialect=dialect)


def _driver(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a checked-out connection has one
    return driver
