"""Workers in SQL: who lives, who cannot do what, and whether anybody else may."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.database import db_now, reading, writing
from labelmill.contracts.tables import UnableWorkerRow, WorkerRow

_KEPT_S = 24 * 3600.0  #: Rows of workers that are gone.


def note_alive(engine: Engine, worker_id: str, name: str, queues: Sequence[str]) -> None:
    """This worker lives now, and serves these queues. Rows of workers long gone are dropped."""
    values = {"name": name[:200], "queues": f",{','.join(sorted(queues))},"[:200], "seen_at": db_now()}
    with writing(engine) as connection:
        if connection.execute(update(WorkerRow).where(WorkerRow.id == worker_id).values(**values)).rowcount:
            return
        connection.execute(insert(WorkerRow).values(id=worker_id, **values))
        connection.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now() - _KEPT_S))
        connection.execute(delete(UnableWorkerRow).where(UnableWorkerRow.until < db_now() - _KEPT_S))


def note_gone(engine: Engine, worker_id: str) -> None:
    """This worker ends."""
    with writing(engine) as connection:
        connection.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def note_unable(engine: Engine, worker_id: str, subject: str, reason: str, for_s: float) -> None:
    """This worker cannot do something, and tries again in `for_s` seconds."""
    values = {"reason": reason, "until": db_now() + for_s}
    mine = (UnableWorkerRow.worker_id == worker_id) & (UnableWorkerRow.subject == subject)
    with writing(engine) as connection:
        connection.execute(delete(UnableWorkerRow).where(mine))
        connection.execute(insert(UnableWorkerRow).values(worker_id=worker_id, subject=subject, **values))


def note_able(engine: Engine, worker_id: str, subject: str) -> None:
    """This worker can do it again."""
    mine = (UnableWorkerRow.worker_id == worker_id) & (UnableWorkerRow.subject == subject)
    with writing(engine) as connection:
        connection.execute(delete(UnableWorkerRow).where(mine))


def others_may(engine: Engine, worker_id: str, subject: str, queue: str, *, seen_within_s: float) -> bool:
    """Whether another worker that serves the queue lived so lately, and is not known to be unable."""
    unable = exists().where(
        UnableWorkerRow.worker_id == WorkerRow.id,
        UnableWorkerRow.subject == subject,
        UnableWorkerRow.until > db_now(),
    )
    other = (
        select(WorkerRow.id)
        .where(WorkerRow.id != worker_id, WorkerRow.seen_at > db_now() - seen_within_s)
        .where(WorkerRow.queues.contains(f",{queue},", autoescape=True), ~unable)
        .limit(1)
    )
    with reading(engine) as connection:
        return connection.scalar(other) is not None
