"""All differences between SQLite and PostgreSQL. No other module checks which of the two is in use.

`base` says what a dialect must be able to do; `sqlite` and `postgres` do it, with connections of their own in
`sqlite_connections` and `postgres_connections`. `tests/conformance/test_dialects.py` holds both to the same results.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database.dialects.base import Dialect, ServerConnections, ServerFacts


def dialect_of(bind: Connection | Engine) -> Dialect:
    """The dialect of a connection or an engine."""
    return dialect_named(bind.dialect.name)


@cache
def dialect_named(backend: str) -> Dialect:
    """The dialect that a URL names (`sqlite`, `postgresql`). Raises InvalidInput for another one."""
    if backend == "sqlite":
        from labelmill.core.database.dialects.sqlite import Sqlite  # noqa: PLC0415 - one of the two is used

        return Sqlite()
    if backend == "postgresql":
        from labelmill.core.database.dialects.postgres import Postgres  # noqa: PLC0415 - as above

        return Postgres()
    raise InvalidInput(f"the database must be SQLite or PostgreSQL, not {backend}")


__all__ = ["Dialect", "ServerConnections", "ServerFacts", "dialect_named", "dialect_of"]
