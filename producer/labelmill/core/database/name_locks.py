"""One at a time for a name: whoever gives it its next version, or says which version answers to it."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.engine import Connection

from labelmill.core.database.dialects import dialect_of


def hold_name(connection: Connection, kind: Literal["dataset", "model"], name: str) -> None:
    """Wait until no other transaction holds the name, and hold it to the end of this one."""
    dialect_of(connection).hold_name(connection, f"{kind} {name}")
