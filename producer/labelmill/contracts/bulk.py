"""The fastest way to put many rows into a table: COPY on PostgreSQL, one prepared statement on SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.engine import Connection


def bulk_insert(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    postgres_types: Sequence[str] | None = None,
) -> None:
    """Insert `rows` (tuples in the order of `columns`) within the connection's transaction.

    With the columns' `postgres_types` PostgreSQL is sent binary rows: a third less work here than text.
    """
    names = ", ".join(f'"{column}"' for column in columns)
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a checked-out connection has one
    if connection.dialect.name == "postgresql":
        form = "" if postgres_types is None else " (FORMAT BINARY)"
        with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN{form}") as copy:
            if postgres_types is not None:
                copy.set_types(postgres_types)
            for row in rows:
                copy.write_row(row)
        return
    marks = ", ".join("?" * len(columns))
    driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - names of ours, never input
