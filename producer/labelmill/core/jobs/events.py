"""The history of jobs, append-only: the only module that writes `events`, and the reader that misses none.

Every transition of a job writes exactly one event with the new state, in the same transaction. Events without a state
record what else happened to a job or to one of its chunks.

`read_events` gives them in one order to every reader. A row's number is drawn when it is inserted, and on PostgreSQL a
later number may be committed before an earlier one: a reader that continued after the last number it saw would miss the
earlier event for ever. So events get a separate position once they are committed. One transaction at a time assigns the
next positions to the events that it sees, in the order of their numbers; events committed later get later positions.
Two events of one job keep their order, because the second one's transaction waits for the first one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.states import State
from labelmill.core.database import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import EventRow, utc_now

_MAX_CHARS = 2000
_NUMBERED_AT_ONCE = 1000  #: Events that get their positions in one transaction.


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `position`: the cursor for `read_events`."""

    position: int
    job_id: str
    at: datetime
    state: str | None  #: The job's new state; None: the event is not a transition.
    chunk: int | None
    message: str


def read_events(engine: Engine, after: int = 0, limit: int = 1000) -> list[Event]:
    """The next events after a position, at most `limit`, in order and without gaps; empty: there are no more yet.

    A reader stores the position of the last event that it has processed, and begins with 0.
    """
    number_new_events(engine)
    columns = (EventRow.position, EventRow.job_id, EventRow.at, EventRow.state, EventRow.chunk, EventRow.message)
    following = select(*columns).where(EventRow.position > after).order_by(EventRow.position).limit(limit)
    with reading(engine) as connection:
        return [Event(**row) for row in connection.execute(following).mappings()]


def number_new_events(engine: Engine) -> bool:
    """Give the next positions to events that have none, the first `_NUMBERED_AT_ONCE` of them. False: there were
    none."""
    unnumbered = select(EventRow.no).where(EventRow.position.is_(None)).order_by(EventRow.no)
    with reading(engine) as connection:  # most often there are none, and nothing is to be written
        if connection.scalar(unnumbered.limit(1)) is None:
            return False
    first = unnumbered.limit(_NUMBERED_AT_ONCE).subquery()
    place = func.row_number().over(order_by=first.c.no).label("place")
    places = select(first.c.no, place).subquery()
    with writing(engine) as connection:
        # one at a time: what the one before has numbered is committed, and seen by the next statement
        dialect_of(connection).lock_name(connection, "positions of events")
        last = connection.scalar(select(func.max(EventRow.position))) or 0
        connection.execute(update(EventRow).where(EventRow.no == places.c.no).values(position=last + places.c.place))
    return True


def note(connection: Connection, job_id: str, message: str, *, chunk: int | None = None) -> None:
    """Append an event that is not a transition."""
    _append(connection, job_id, message, None, chunk)


def note_at(connection: Connection, job_id: str, lines: Sequence[tuple[datetime, str]]) -> None:
    """Append events that happened at other times, such as at Mistral."""
    rows = [{"job_id": job_id, "at": at, "message": message[:_MAX_CHARS]} for at, message in lines]
    if rows:
        connection.execute(insert(EventRow), rows)


def record_transition(
    connection: Connection, job_id: str, state: State, message: str, *, chunk: int | None = None
) -> None:
    """Append the event of a transition. Only `transitions` calls it."""
    _append(connection, job_id, message or state.value, state.value, chunk)


def _append(connection: Connection, job_id: str, message: str, state: str | None, chunk: int | None) -> None:
    connection.execute(
        insert(EventRow).values(job_id=job_id, at=utc_now(), message=message[:_MAX_CHARS], state=state, chunk=chunk)
    )
