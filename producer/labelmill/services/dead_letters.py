"""Messages that workers dropped, as `labelmill dead-letters` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from labelmill.core.database import reading
from labelmill.core.database.tables import KEPT_DEAD_LETTERS, DeadLetterRow
from labelmill.services.context import ServiceContext


@dataclass(frozen=True)
class DeadLettersRequest:
    """How many of the latest messages to list."""

    limit: int = 20


def list_dead_letters(context: ServiceContext, request: DeadLettersRequest) -> list[dict[str, Any]]:
    """The newest first: `at`, `queue`, `task`, `message_id`, `reason`, `excerpt`."""
    row = DeadLetterRow
    columns = (row.at, row.queue, row.task, row.message_id, row.reason, row.excerpt)
    with reading(context.engine) as connection:
        newest = connection.execute(select(*columns).order_by(row.no.desc()).limit(request.limit))
        return [dict(letter) | {"at": letter["at"].isoformat()} for letter in newest.mappings()]


__all__ = ["KEPT_DEAD_LETTERS", "DeadLettersRequest", "list_dead_letters"]
