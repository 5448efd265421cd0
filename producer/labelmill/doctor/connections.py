"""PostgreSQL's connections: how many it allows, how many are used, and how many the fleet may come to hold."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection

from labelmill.core.database import PRODUCER_CONNECTIONS, WORKER_CONNECTIONS, is_pooled
from labelmill.doctor.checks import Check, ok, warning

_NEARLY_ALL = 0.9
_REMEDY = "raise max_connections, run fewer worker processes, or put PgBouncer in front"

#: Those that are kept for superusers count as used by others; a database's and a role's own limit count too.
_QUESTION = text("""
    SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
           least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true)::int, 0),
                 (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
                 (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)) AS allowed
""")


@dataclass(frozen=True)
class ServerConnections:
    """`pooled`: a pooler stands in between, and its own limits are what clients meet."""

    used: int
    allowed: int
    pooled: bool


def look_at_connections(connection: Connection) -> ServerConnections | None:
    """Ask the server; SQLite has none."""
    if connection.dialect.name != "postgresql":
        return None
    row = connection.execute(_QUESTION).one()
    return ServerConnections(int(row.used), int(row.allowed), is_pooled(connection))


def check_of(server: ServerConnections, workers: int | None) -> Check:
    """Whether `workers` worker processes and one producer find room; None: nobody could ask how many there are."""
    name = "database connections"
    said = f"{server.used} of {server.allowed} are used"
    if server.used > server.allowed * _NEARLY_ALL:
        return warning(name, said, _REMEDY)
    if server.pooled:
        return ok(name, f"{said}; a pooler stands in front")
    if workers is None:
        return ok(name, f"{said}; how many workers there are is not known")
    needed = workers * WORKER_CONNECTIONS + PRODUCER_CONNECTIONS
    many = f"{workers} worker process{'es' if workers != 1 else ''} and a producer may hold {needed}"
    if needed > server.allowed:
        return warning(name, f"{said}; {many}", _REMEDY)
    return ok(name, f"{said}; {many}")
