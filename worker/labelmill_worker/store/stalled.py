"""Stalled work: jobs that no worker polls, chunks whose worker died, batches whose last closer died.

Reads come first, and what they find is few: a write is worth its lock only when something is stalled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.states import BatchState, ChunkState
from labelmill.core.database import MAX_CHUNK_DELAY_S, MAX_POLL_DELAY_S, db_now, has_passed, reading, writing
from labelmill.core.database.tables import OPEN_CHUNK, BatchRow, ChunkRow, utc_now
from labelmill.core.jobs import chunk_transitions, events, leases
from labelmill.core.jobs.tables import JobTable, is_runnable
from labelmill_worker.store.chunks import complete_batch
from labelmill_worker.store.jobs import is_free, write_held
from labelmill_worker.store.transitions import move_job

#: A message is on its queue or in work within a second. Work that is neither after so long has lost it.
LOST_AFTER_S = 5.0
_BY_A_LITTLE_S = 0.1
_AT_ONCE = 200
#: Of each kind, in a sweep. Where every slot for long work is taken, messages are received in vain: they must be few.
_JOBS_AT_ONCE = 50


@dataclass(frozen=True)
class RunnableBatch:
    """A batch whose chunks may be worked on."""

    no: int
    id: str
    is_stopping: bool = False  #: Its remote batches are being stopped.


def overdue_jobs(engine: Engine, table: JobTable) -> list[str]:
    """Ids of unclaimed jobs whose poll is `LOST_AFTER_S` late, or whose worker died: the most overdue ones.

    A job that was never polled is late `LOST_AFTER_S` after the first sweep that saw it.
    """
    overdue = select(table.id).where(_is_overdue(table)).order_by(table.next_look_at).limit(_JOBS_AT_ONCE)
    with reading(engine) as connection:
        ids = list(connection.scalars(overdue))
        unseen = connection.scalar(select(table.id).where(is_free(table), table.next_look_at.is_(None)).limit(1))
    if unseen is not None:
        # a lease that ran out is a worker that died: its job is late as it is
        since = case((table.lease_until.is_not(None), db_now() - LOST_AFTER_S), else_=db_now())
        with writing(engine) as connection:
            connection.execute(
                update(table).where(is_free(table), table.next_look_at.is_(None)).values(next_look_at=since)
            )
    return ids


def _is_overdue(table: JobTable) -> ColumnElement[bool]:
    return and_(is_free(table), has_passed(table.next_look_at, ago_s=LOST_AFTER_S, max_ahead_s=MAX_POLL_DELAY_S))


def defer_jobs(engine: Engine, table: JobTable, ids: Sequence[str]) -> None:
    """Jobs that have a message now are not late for another `LOST_AFTER_S`."""
    with writing(engine) as connection:
        connection.execute(update(table).where(table.id.in_(ids), is_free(table)).values(next_look_at=db_now()))


def leave_to_recovery(engine: Engine, table: JobTable, job_id: str) -> None:
    """A job whose message was taken off the queue without being carried out is overdue at once: the next sweep sends
    it, or before that a worker whose slot for it becomes free."""
    with writing(engine) as connection:
        overdue = db_now() - LOST_AFTER_S - _BY_A_LITTLE_S
        connection.execute(update(table).where(table.id == job_id, is_free(table)).values(next_look_at=overdue))


def give_to_recovery(engine: Engine, table: JobTable, job_id: str, token: str) -> None:
    """The same for a job that this worker has claimed: the claim does not count as an attempt."""
    with writing(engine) as connection:
        write_held(
            connection,
            table,
            job_id,
            token,
            **leases.RELEASED,
            attempts=table.attempts - 1,
            next_look_at=db_now() - LOST_AFTER_S - _BY_A_LITTLE_S,
        )


def take_overdue_job(engine: Engine, table: JobTable) -> str | None:
    """The job that is overdue for longest, for a message of its own: no other worker sends one for the next
    `LOST_AFTER_S`. None: there is none."""
    longest = select(table.id).where(_is_overdue(table)).order_by(table.next_look_at).limit(1)
    with reading(engine) as connection:
        job_id = connection.scalar(longest)
    if job_id is None:
        return None
    with writing(engine) as connection:
        take = update(table).where(table.id == job_id, _is_overdue(table)).values(next_look_at=db_now())
        return job_id if connection.execute(take).rowcount else None


def return_expired_chunks(engine: Engine, *, grace_s: float = 0.0) -> int:
    """Return chunks whose lease ran out to the queue (`claimed` → `pending`), each with a line in `events`. Those whose
    lease ran out within the last `grace_s` are left to their owners."""
    ran_out = has_passed(ChunkRow.lease_until, ago_s=grace_s)
    ids = {batch.no: batch.id for batch in runnable_batches(engine)}
    if not ids:
        return 0
    # by the numbers of the open batches, so that the index of open chunks serves: there may be 10⁵ others
    with reading(engine) as connection:
        expired = connection.execute(
            select(ChunkRow.batch_no, ChunkRow.number, ChunkRow.lease_token)
            .where(ChunkRow.batch_no.in_(sorted(ids)), OPEN_CHUNK, ChunkRow.state == ChunkState.CLAIMED.value)
            .where(ran_out)
            .limit(_AT_ONCE)
        ).all()
    returned = 0
    for batch_no, number, token in expired:
        batch_id = ids[batch_no]
        with writing(engine) as connection:
            if chunk_transitions.take_back(connection, batch_no, number, token, ran_out):
                returned += 1
                events.note(connection, batch_id, "its worker's lease ran out; runnable again", chunk=number)
    return returned


def runnable_batches(engine: Engine) -> list[RunnableBatch]:
    """Batches whose chunks may be worked on, the oldest first."""
    with reading(engine) as connection:
        # sorted here: told to sort, SQLite reads every batch there ever was in order instead of using the index
        columns = (BatchRow.no, BatchRow.id, BatchRow.stopping.is_not(None))
        rows = sorted(connection.execute(select(*columns).where(is_runnable(BatchRow))).all())
    return [RunnableBatch(no, batch_id, bool(is_stopping)) for no, batch_id, is_stopping in rows]


def overdue_chunks(engine: Engine, batch_no: int) -> list[int]:
    """Chunks whose message was sent `LOST_AFTER_S` ago and that no worker claimed: it waits on its queue, or is
    lost."""
    # those with a message come first, for chunks are sent in order: the 10⁵ behind them are not read
    # without the bound SQLite would walk the primary key, through all chunks that are done
    first = select(ChunkRow.number, ChunkRow.sent_at).where(_pending(batch_no), ChunkRow.number >= 0)
    ahead = first.order_by(ChunkRow.number).limit(_AT_ONCE).subquery()
    late = has_passed(ahead.c.sent_at, ago_s=LOST_AFTER_S, max_ahead_s=MAX_CHUNK_DELAY_S)
    with reading(engine) as connection:
        return list(connection.scalars(select(ahead.c.number).where(late).order_by(ahead.c.sent_at)))


def forget_messages(engine: Engine, batch_no: int, numbers: Iterable[int]) -> None:
    """The messages of these chunks are lost."""
    if lost := list(numbers):
        with writing(engine) as connection:
            pending = ChunkRow.state == ChunkState.PENDING.value
            connection.execute(
                update(ChunkRow)
                .where(ChunkRow.batch_no == batch_no, ChunkRow.number.in_(lost), pending)
                .values(sent_at=None)
            )


def has_unsent_chunk(engine: Engine, batch_no: int) -> bool:
    """Whether a message could be sent for the batch, if its window has room."""
    with reading(engine) as connection:
        unsent = select(ChunkRow.number).where(_pending(batch_no), ChunkRow.sent_at.is_(None)).limit(1)
        return connection.scalar(unsent) is not None


def _pending(batch_no: int) -> ColumnElement[bool]:
    return and_(ChunkRow.batch_no == batch_no, OPEN_CHUNK, ChunkRow.state == ChunkState.PENDING.value)


def complete_finished_batches(engine: Engine, batches: Iterable[RunnableBatch]) -> None:
    """End batches whose last chunk was closed by a worker that died before it could say so, or that have no row."""
    for batch in batches:
        with reading(engine) as connection:
            open_chunk = select(ChunkRow.number).where(ChunkRow.batch_no == batch.no, OPEN_CHUNK).limit(1)
            if connection.scalar(open_chunk) is not None:
                continue
        with writing(engine) as connection:
            nothing_open = ~exists().where(ChunkRow.batch_no == batch.no, OPEN_CHUNK)
            move_job(
                connection, batch.id, BatchState.RUNNING, nothing_open, old=BatchState.QUEUED, started_at=utc_now()
            )
        complete_batch(engine, batch.no, batch.id)
