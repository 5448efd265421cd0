"""SQL through the drivers alone, so that checks share no code with the product."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
from rig import Rig


def query(rig: Rig, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a statement with `?` for values."""
    if rig.postgres is not None:
        with psycopg.connect(str(rig.client.settings.database_url)) as connection:
            return connection.execute(statement.replace("%", "%%").replace("?", "%s").encode(), values).fetchall()
    lite = sqlite3.connect(f"file:{rig.data}/labelmill.db?mode=ro", uri=True, timeout=30)
    try:
        return lite.execute(statement, values).fetchall()
    finally:
        lite.close()
