"""The table of dropped messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Engine

from labelmill.core.database import writing
from labelmill.core.database.tables import KEPT_DEAD_LETTERS, DeadLetterRow


def keep_dead_letters(engine: Engine, letters: Sequence[dict[str, Any]]) -> None:
    """Add `letters`, columns by name, and forget all but the newest. Raises DatabaseUnavailable."""
    with writing(engine) as connection:
        connection.execute(insert(DeadLetterRow), list(letters))
        oldest = connection.scalar(
            select(DeadLetterRow.no).order_by(DeadLetterRow.no.desc()).offset(KEPT_DEAD_LETTERS).limit(1)
        )
        if oldest is not None:
            connection.execute(delete(DeadLetterRow).where(DeadLetterRow.no <= oldest))
