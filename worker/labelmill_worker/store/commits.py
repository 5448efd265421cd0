"""A commit whose answer is lost may have been carried out: PostgreSQL is asked before the same is written again.

SQLite answers from within this process: what it says of a commit is so.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from labelmill.core.database.dialects import dialect_of

PATIENCE_S = 120.0  #: Answers are kept so long while the database is out of reach; then they are lost, and paid again.
DATABASE_PAUSE_S = 0.5  #: Between two tries meanwhile.


def was_committed(connection: Connection, transaction: str) -> bool:
    """Whether a transaction went through. Raises DatabaseUnavailable while the server is not done with it."""
    with connection.begin():
        return dialect_of(connection).was_committed(connection, transaction)
