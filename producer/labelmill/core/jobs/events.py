"""The history of jobs, append-only: the one place that writes `events`.

Every transition of every job leaves exactly one line with its new state, in the transaction that makes it. Lines
without a state tell what else happened to a job or to one of its chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from labelmill.contracts.states import State
from labelmill.core.database.tables import EventRow, utc_now

_MAX_CHARS = 2000


def note(connection: Connection, job_id: str, message: str, *, chunk: int | None = None) -> None:
    """Append a line to a job's history that is no transition."""
    _append(connection, job_id, message, None, chunk)


def note_at(connection: Connection, job_id: str, lines: Sequence[tuple[datetime, str]]) -> None:
    """Append lines about what happened at other moments, such as at Mistral."""
    rows = [{"job_id": job_id, "at": at, "message": message[:_MAX_CHARS]} for at, message in lines]
    if rows:
        connection.execute(insert(EventRow), rows)


def record_transition(
    connection: Connection, job_id: str, state: State, message: str, *, chunk: int | None = None
) -> None:
    """Append the line of a transition. Only `transitions` calls it."""
    _append(connection, job_id, message or state.value, state.value, chunk)


def _append(connection: Connection, job_id: str, message: str, state: str | None, chunk: int | None) -> None:
    connection.execute(
        insert(EventRow).values(job_id=job_id, at=utc_now(), message=message[:_MAX_CHARS], state=state, chunk=chunk)
    )
