"""What holds the work of a worker back, in SQL: `status` reads it."""

from __future__ import annotations

from sqlalchemy import delete, insert, update
from sqlalchemy.engine import Engine

from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import DelayRow
from labelmill.core.jobs.delays import DelayReason

_KEPT_S = 24 * 3600.0  #: Rows of workers that are gone.
_MOST_CHARS = 500


def note_delay(
    engine: Engine, worker_id: str, subject: str, reason: DelayReason, message: str, *, since_s: float, valid_s: float
) -> None:
    """Something holds this worker back, for `since_s` seconds already. It counts for `valid_s` seconds from now; one of
    the same reason that counts still keeps its beginning."""
    is_own = (DelayRow.worker_id == worker_id) & (DelayRow.subject == subject)
    values = {"reason": reason.value, "message": message[:_MOST_CHARS], "until": db_now() + valid_s}
    with writing(engine) as connection:
        goes_on = is_own & (DelayRow.reason == reason.value) & (DelayRow.until > db_now())
        if connection.execute(update(DelayRow).where(goes_on).values(**values)).rowcount:
            return
        connection.execute(delete(DelayRow).where(is_own | (DelayRow.until < db_now() - _KEPT_S)))
        since = db_now() - since_s
        connection.execute(insert(DelayRow).values(worker_id=worker_id, subject=subject, since=since, **values))


def end_delay(engine: Engine, worker_id: str, subject: str) -> None:
    """Nothing holds it back any more."""
    is_own = (DelayRow.worker_id == worker_id) & (DelayRow.subject == subject)
    with writing(engine) as connection:
        connection.execute(delete(DelayRow).where(is_own))


def end_delays_of_job(engine: Engine, job_id: str) -> None:
    """Nothing holds a job back any more, whichever workers met what did: one of them has brought it on."""
    with writing(engine) as connection:
        connection.execute(delete(DelayRow).where(DelayRow.subject == job_id))
