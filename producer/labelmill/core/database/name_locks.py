"""Locks on names of datasets and models, and on idempotency keys: only one transaction at a time adds a version,
promotes one, or makes a job under a key."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.engine import Connection

from labelmill.core.database.dialects import dialect_of


def lock_name(connection: Connection, kind: Literal["dataset", "model", "idempotency key", "list"], name: str) -> None:
    """Lock the name until the end of this transaction; waits while another transaction holds the lock."""
    dialect_of(connection).lock_name(connection, f"{kind} {name}")
