"""One at a time for a name: whoever gives it its next version, or says which version answers to it."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection


def hold_name(connection: Connection, kind: Literal["dataset", "model"], name: str) -> None:
    """Wait until no other transaction holds the name, and hold it to the end of this one. SQLite has one writer at a
    time anyway."""
    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        connection.execute(lock, {"name": f"{kind} {name}"})
