"""Messages that workers dropped, as `labelmill dead-letters` lists them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.core.database.tables import DeadLetterRow


def list_dead_letters(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The newest first: `at`, `queue`, `task`, `message_id`, `reason`, `excerpt`."""
    row = DeadLetterRow
    columns = (row.at, row.queue, row.task, row.message_id, row.reason, row.excerpt)
    newest = connection.execute(select(*columns).order_by(row.no.desc()).limit(limit))
    return [dict(found) | {"at": found["at"].isoformat()} for found in newest.mappings()]
