"""PostgreSQL's connections: how many are allowed and used, and how many the fleet may open."""

from __future__ import annotations

from labelmill.core.database import PRODUCER_CONNECTIONS, WORKER_CONNECTIONS
from labelmill.core.database.dialects import ServerConnections
from labelmill.doctor.checks import Check, ok, warning

_NEARLY_ALL = 0.9
_REMEDY = "raise max_connections, run fewer worker processes, or put PgBouncer in front"


def check_of(server: ServerConnections, workers: int | None) -> Check:
    """Whether the limit suffices for `workers` worker processes and one producer; None: their number is not known."""
    name = "database connections"
    summary = f"{server.used} of {server.allowed} are used"
    if server.used > server.allowed * _NEARLY_ALL:
        return warning(name, summary, _REMEDY)
    if server.pooled:
        return ok(name, f"{summary}; a pooler stands in front")
    if workers is None:
        return ok(name, f"{summary}; how many workers there are is not known")
    needed = workers * WORKER_CONNECTIONS + PRODUCER_CONNECTIONS
    needs = f"{workers} worker process{'es' if workers != 1 else ''} and a producer may hold {needed}"
    if needed > server.allowed:
        return warning(name, f"{summary}; {needs}", _REMEDY)
    return ok(name, f"{summary}; {needs}")
