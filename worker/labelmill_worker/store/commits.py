"""A commit whose answer is lost may have been carried out: PostgreSQL is asked before the same is written again.

SQLite answers from within this process: what it says of a commit is so.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import Connection

from labelmill.contracts.errors import DatabaseUnavailable

PATIENCE_S = 120.0  #: Answers are kept so long while the database is out of reach; then they are lost, and paid again.
DATABASE_PAUSE_S = 0.5  #: Between two tries meanwhile.


def was_committed(connection: Connection, number: str) -> bool:
    """Whether a transaction went through. Raises DatabaseUnavailable while the server is not done with it."""
    with connection.begin():
        status = connection.scalar(text("SELECT pg_xact_status(CAST(:number AS xid8))"), {"number": number})
    if status == "in progress":
        raise DatabaseUnavailable("the database has not yet noticed that a connection is gone")
    return bool(status == "committed")
