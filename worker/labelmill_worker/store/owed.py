"""What SQL says is owed: jobs that nobody looks at, chunks whose worker died, batches whose last closer died."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy import and_, exists, insert, or_, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.database import db_now, reading, writing
from labelmill.contracts.states import BatchState, ChunkState, State
from labelmill.contracts.tables import BatchRow, ChunkRow, DatasetRow, EvaluationRow, LockRow, TrainingRow, utc_now
from labelmill_worker.store.chunks import complete_batch
from labelmill_worker.store.jobs import add_event

_AT_ONCE = 200


def take_lease(engine: Engine, name: str, seconds: float) -> bool:
    """Take a named lease for `seconds`; False: another process has it."""
    token = secrets.token_hex(8)
    with writing(engine) as connection:
        taken = connection.execute(
            update(LockRow)
            .where(LockRow.name == name, LockRow.until < db_now())
            .values(token=token, until=db_now() + seconds * 0.9)
        ).rowcount
        if taken:
            return True
        if connection.scalar(select(LockRow.name).where(LockRow.name == name)):
            return False
    try:
        with writing(engine) as connection:
            connection.execute(insert(LockRow).values(name=name, token=token, until=db_now() + seconds * 0.9))
    except IntegrityError:
        return False
    return True


def owed_jobs(
    engine: Engine,
    table: type[DatasetRow | TrainingRow | EvaluationRow],
    states: Sequence[State],
    *,
    late_s: float,
    again_in_s: float,
) -> list[str]:
    """Ids of jobs whose look is `late_s` overdue and that nobody holds. They are not owed again before `again_in_s`.

    A job that was never looked at is overdue `late_s` after the first sweep that saw it.
    """
    free = or_(table.lease_until.is_(None), table.lease_until < db_now())
    open_ = table.state.in_([state.value for state in states])
    with writing(engine) as connection:
        connection.execute(update(table).where(open_, free, table.next_look_at.is_(None)).values(next_look_at=db_now()))
        ids = list(
            connection.scalars(
                select(table.id).where(open_, free, table.next_look_at < db_now() - late_s).limit(_AT_ONCE)
            )
        )
        if ids:
            connection.execute(
                update(table).where(table.id.in_(ids)).values(next_look_at=db_now() + again_in_s - late_s)
            )
    return ids


def return_expired_chunks(engine: Engine) -> int:
    """Hand back chunks whose lease ran out (`claimed` → `pending`), each with a line in `events`."""
    with reading(engine) as connection:
        expired = connection.execute(
            select(ChunkRow.batch_no, ChunkRow.number, ChunkRow.lease_token, BatchRow.id)
            .join(BatchRow, BatchRow.no == ChunkRow.batch_no)
            .where(ChunkRow.state == ChunkState.CLAIMED.value, ChunkRow.lease_until < db_now())
            .limit(_AT_ONCE)
        ).all()
    returned = 0
    for batch_no, number, token, batch_id in expired:
        with writing(engine) as connection:
            gone = and_(ChunkRow.state == ChunkState.CLAIMED.value, ChunkRow.lease_token == token)
            done = connection.execute(
                update(ChunkRow)
                .where(ChunkRow.batch_no == batch_no, ChunkRow.number == number, gone, ChunkRow.lease_until < db_now())
                .values(state=ChunkState.PENDING.value, lease_token=None, lease_until=None, sent_at=None)
            ).rowcount
            if done:
                returned += 1
                add_event(connection, batch_id, "its worker's lease ran out; owed again", chunk=number)
    return returned


def open_batches(engine: Engine) -> list[str]:
    """Batches that are owed work, the oldest first."""
    with reading(engine) as connection:
        return list(
            connection.scalars(
                select(BatchRow.id)
                .where(BatchRow.state.in_((BatchState.QUEUED.value, BatchState.RUNNING.value)))
                .order_by(BatchRow.no)
            )
        )


def complete_finished_batches(engine: Engine) -> None:
    """End batches whose last chunk was closed by a worker that died before it could say so, or that have no row."""
    with reading(engine) as connection:
        running = connection.execute(
            select(BatchRow.no, BatchRow.id).where(
                BatchRow.state.in_((BatchState.QUEUED.value, BatchState.RUNNING.value))
            )
        ).all()
    for no, batch_id in running:
        with writing(engine) as connection:
            connection.execute(
                update(BatchRow)
                .where(BatchRow.no == no, BatchRow.state == BatchState.QUEUED.value)
                .where(~exists().where(ChunkRow.batch_no == no))
                .values(state=BatchState.RUNNING.value, started_at=utc_now())
            )
        complete_batch(engine, no, batch_id)
