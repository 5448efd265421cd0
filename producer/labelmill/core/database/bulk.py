"""Many rows on their way into a table and out of it, the fastest way: COPY on PostgreSQL, one prepared statement on
SQLite, and statements that go to the driver as they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
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
    # around a single statement a pipeline takes more CPU than the statement
    with driver.pipeline() if len(each_values) > 1 else nullcontext():
        cursors = [driver.execute(compiled.string, compiled.construct_params(values)) for values in each_values]
    return [cursor.fetchone() for cursor in cursors]


_NAMED = re.compile(r"%\((\w+)\)s")


def run_as_written(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Any]:
    """Run a statement with parameters like `%(name)s` within the connection's transaction. Returns the driver's rows.

    A row of the toolkit's own for every row of a million takes as long as reading it.
    """
    driver = _driver(connection)
    if connection.dialect.name == "sqlite":
        return list(driver.execute(_NAMED.sub(r":\1", statement), values))
    with driver.cursor(binary=True) as cursor:  # bytes as they are, not as twice as many hexadecimal digits
        # planned anew each time: a plan that was made while the table was small would read all of it when it is large
        cursor.execute(statement, values, prepare=False)
        return list(cursor.fetchall()) if cursor.description else []


@lru_cache(maxsize=16)
def _compiled(statement: Any, dialect: Any) -> Any:
    return statement.compile(dialect=dialect)


def _driver(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a checked-out connection has one
    return driver
