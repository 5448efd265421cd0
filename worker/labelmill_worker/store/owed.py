"""What SQL says is owed: jobs that nobody looks at, chunks whose worker died, batches whose last closer died.

Reads come first, and what they find is few: a write is worth its lock only when something is owed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, insert, or_, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.database import FAR_CHUNK_S, FAR_S, db_now, has_passed, reading, writing
from labelmill.contracts.states import BatchState, ChunkState, State
from labelmill.contracts.tables import (
    OPEN_CHUNK,
    BatchRow,
    ChunkRow,
    DatasetRow,
    EvaluationRow,
    LockRow,
    TrainingRow,
    utc_now,
)
from labelmill_worker.store.chunks import complete_batch
from labelmill_worker.store.jobs import add_event

#: A message is on its queue or in work within moments. Work that is neither after so long has lost it.
LOST_AFTER_S = 5.0
_CLOCKS_WANDER_S = 5.0  #: A clock that is put right by so little was not set back.
_AT_ONCE = 200
_RUNS = (BatchState.QUEUED.value, BatchState.RUNNING.value)

JobTable = type[DatasetRow | TrainingRow | EvaluationRow]


@dataclass(frozen=True)
class OpenBatch:
    """A batch that is owed work."""

    no: int
    id: str


def take_lease(engine: Engine, name: str, seconds: float) -> float | None:
    """Take a named lease for `seconds`. Returns for how long nobody had it (below 0: the database's clock was set back
    by more than as much), None when another process has it now."""
    token = secrets.token_hex(8)
    free = has_passed(LockRow.until, far_s=seconds + _CLOCKS_WANDER_S)
    with writing(engine) as connection:
        free_for_s = connection.scalar(select(db_now() - LockRow.until).where(LockRow.name == name, free))
        taken = connection.execute(
            update(LockRow).where(LockRow.name == name, free).values(token=token, until=db_now() + seconds)
        ).rowcount
        if taken:
            return float(free_for_s or 0.0)
        if connection.scalar(select(LockRow.name).where(LockRow.name == name)):
            return None
    try:
        with writing(engine) as connection:
            connection.execute(insert(LockRow).values(name=name, token=token, until=db_now() + seconds))
    except IntegrityError:
        return None
    return 0.0


def hold_lease(engine: Engine, name: str, seconds: float) -> None:
    """Keep a named lease that was taken just now for `seconds` from now on."""
    with writing(engine) as connection:
        connection.execute(update(LockRow).where(LockRow.name == name).values(until=db_now() + seconds))


def _is_open(table: JobTable, states: Sequence[State]) -> ColumnElement[bool]:
    free = or_(table.lease_until.is_(None), has_passed(table.lease_until))
    return and_(table.state.in_([state.value for state in states]), free)


def overdue_jobs(engine: Engine, table: JobTable, states: Sequence[State]) -> list[str]:
    """Ids of jobs that nobody holds and whose look is `LOST_AFTER_S` late, or whose worker died.

    A job that was never looked at is late `LOST_AFTER_S` after the first sweep that saw it.
    """
    open_ = _is_open(table, states)
    late = has_passed(table.next_look_at, ago_s=LOST_AFTER_S, far_s=FAR_S)
    with reading(engine) as connection:
        ids = list(connection.scalars(select(table.id).where(open_, late).limit(_AT_ONCE)))
        unseen = connection.scalar(select(table.id).where(open_, table.next_look_at.is_(None)).limit(1))
    if unseen is not None:
        # a lease that ran out is a worker that died: its job is late as it is
        since = case((table.lease_until.is_not(None), db_now() - LOST_AFTER_S), else_=db_now())
        with writing(engine) as connection:
            connection.execute(update(table).where(open_, table.next_look_at.is_(None)).values(next_look_at=since))
    return ids


def put_off(engine: Engine, table: JobTable, ids: Sequence[str]) -> None:
    """Jobs that have a message now are not late for another `LOST_AFTER_S`."""
    with writing(engine) as connection:
        connection.execute(update(table).where(table.id.in_(ids)).values(next_look_at=db_now()))


def return_expired_chunks(engine: Engine, *, spared_s: float = 0.0) -> int:
    """Hand back chunks whose lease ran out (`claimed` → `pending`), each with a line in `events`. Those whose lease ran
    out within the last `spared_s` are left to their owners."""
    ran_out = has_passed(ChunkRow.lease_until, ago_s=spared_s)
    ids = {batch.no: batch.id for batch in open_batches(engine)}
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
            gone = and_(ChunkRow.state == ChunkState.CLAIMED.value, ChunkRow.lease_token == token)
            done = connection.execute(
                update(ChunkRow)
                .where(ChunkRow.batch_no == batch_no, ChunkRow.number == number, gone)
                .where(ran_out)
                .values(state=ChunkState.PENDING.value, lease_token=None, lease_until=None, sent_at=None)
            ).rowcount
            if done:
                returned += 1
                add_event(connection, batch_id, "its worker's lease ran out; owed again", chunk=number)
    return returned


def open_batches(engine: Engine) -> list[OpenBatch]:
    """Batches that are owed work, the oldest first."""
    with reading(engine) as connection:
        # sorted here: told to sort, SQLite reads every batch there ever was in order instead of using the index
        found = sorted(connection.execute(select(BatchRow.no, BatchRow.id).where(BatchRow.state.in_(_RUNS))).all())
    return [OpenBatch(no, batch_id) for no, batch_id in found]


def overdue_chunks(engine: Engine, batch_no: int) -> list[int]:
    """Chunks whose message was sent `LOST_AFTER_S` ago and that nobody claimed: it waits on its queue, or is lost."""
    # those with a message come first, for chunks are sent in order: no look at the 10⁵ behind them
    # without the bound SQLite would walk the primary key, through all chunks that are done
    first = select(ChunkRow.number, ChunkRow.sent_at).where(_pending(batch_no), ChunkRow.number >= 0)
    ahead = first.order_by(ChunkRow.number).limit(_AT_ONCE).subquery()
    late = has_passed(ahead.c.sent_at, ago_s=LOST_AFTER_S, far_s=FAR_CHUNK_S)
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


def complete_finished_batches(engine: Engine, batches: Iterable[OpenBatch]) -> None:
    """End batches whose last chunk was closed by a worker that died before it could say so, or that have no row."""
    for batch in batches:
        with reading(engine) as connection:
            open_chunk = select(ChunkRow.number).where(ChunkRow.batch_no == batch.no, OPEN_CHUNK).limit(1)
            if connection.scalar(open_chunk) is not None:
                continue
        with writing(engine) as connection:
            connection.execute(
                update(BatchRow)
                .where(BatchRow.no == batch.no, BatchRow.state == BatchState.QUEUED.value)
                .where(~exists().where(ChunkRow.batch_no == batch.no, OPEN_CHUNK))
                .values(state=BatchState.RUNNING.value, started_at=utc_now())
            )
        complete_batch(engine, batch.no, batch.id)
