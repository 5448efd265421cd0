"""Workers in SQL: which are alive, what each cannot do, and whether another one may."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, case, delete, exists, insert, or_, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.job_kinds import KINDS
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import UnableWorkerRow, WorkerRow, utc_now
from labelmill.core.jobs.tables import TABLE_OF, is_runnable

ALIVE_EVERY_S = 5.0  #: How often a worker writes its heartbeat.
LIVE_S = 30.0  #: A worker whose latest heartbeat is no older counts as alive.
RESUME_S = 3 * ALIVE_EVERY_S  #: How soon all are seen again when the database is back.
_FAR_S = 600.0  #: No inability is noted for so long.
_KEPT_S = 24 * 3600.0  #: Rows of workers that are gone.


def note_alive(engine: Engine, worker_id: str, name: str, queues: Sequence[str]) -> None:
    """Write this worker's heartbeat and the queues that it serves. Rows of workers long gone are dropped."""
    values = {"name": name[:200], "queues": f",{','.join(sorted(queues))},"[:200], "seen_at": db_now()}
    resumed_at = case((_lives(LIVE_S), WorkerRow.resumed_at), else_=db_now())
    again = update(WorkerRow).where(WorkerRow.id == worker_id).values(resumed_at=resumed_at, **values)
    with writing(engine) as connection:
        if connection.execute(again).rowcount:
            return
        connection.execute(insert(WorkerRow).values(id=worker_id, **values))
        connection.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now() - _KEPT_S))
        connection.execute(delete(UnableWorkerRow).where(UnableWorkerRow.until < db_now() - _KEPT_S))


def _lives(within_s: float) -> ColumnElement[bool]:
    """Seen within that time. A time far ahead was written before the clock was set back."""
    return WorkerRow.seen_at.between(db_now() - within_s, db_now() + LIVE_S)


def note_gone(engine: Engine, worker_id: str) -> None:
    """This worker shuts down."""
    with writing(engine) as connection:
        connection.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def note_unable(engine: Engine, worker_id: str, subject: str, reason: str, for_s: float) -> None:
    """This worker cannot do something, and tries again in `for_s` seconds."""
    values = {"reason": reason, "until": db_now() + for_s}
    is_own = (UnableWorkerRow.worker_id == worker_id) & (UnableWorkerRow.subject == subject)
    with writing(engine) as connection:
        connection.execute(delete(UnableWorkerRow).where(is_own))
        connection.execute(insert(UnableWorkerRow).values(worker_id=worker_id, subject=subject, **values))


def note_able(engine: Engine, worker_id: str, subject: str) -> None:
    """This worker can do it again."""
    is_own = (UnableWorkerRow.worker_id == worker_id) & (UnableWorkerRow.subject == subject)
    with writing(engine) as connection:
        connection.execute(delete(UnableWorkerRow).where(is_own))


def others_may(engine: Engine, worker_id: str, subject: str, queue: str, *, seen_within_s: float) -> bool:
    """Whether another worker that serves the queue was alive within that time, and is not known to be unable.

    After an outage of the database no worker has been seen recently, nor has this one: then others may, until all of
    them have had the time to be seen again.
    """
    unable = exists().where(
        UnableWorkerRow.worker_id == WorkerRow.id,
        UnableWorkerRow.subject == subject,
        UnableWorkerRow.until.between(db_now(), db_now() + _FAR_S),
    )
    other = (
        select(WorkerRow.id)
        .where(WorkerRow.id != worker_id, _lives(seen_within_s))
        .where(WorkerRow.queues.contains(f",{queue},", autoescape=True), ~unable)
        .limit(1)
    )
    just_resumed = WorkerRow.resumed_at.between(db_now() - RESUME_S, db_now() + RESUME_S)
    silence = select(WorkerRow.id).where(WorkerRow.id == worker_id, or_(~_lives(LIVE_S), just_resumed))
    with reading(engine) as connection:
        return connection.scalar(other) is not None or connection.scalar(silence) is not None


def unserved_queues(engine: Engine) -> list[str]:
    """The queues that hold work for some time while no live worker serves them."""
    before = utc_now() - timedelta(seconds=2 * LIVE_S)
    found: list[str] = []
    with reading(engine) as connection:
        for kind, table in TABLE_OF.items():
            queue = KINDS[kind].queue
            if queue in found:
                continue
            waiting = select(table.no).where(is_runnable(table), table.created_at < before).limit(1)
            serves = WorkerRow.queues.contains(f",{queue},", autoescape=True)
            serving = select(WorkerRow.id).where(_lives(LIVE_S), serves)
            if connection.scalar(waiting) is not None and connection.scalar(serving.limit(1)) is None:
                found.append(queue)
    return found
