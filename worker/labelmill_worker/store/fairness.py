"""Which batch a worker should serve next, and whether one is not served at all."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, case, func, or_, select
from sqlalchemy.engine import Engine

from labelmill.contracts.messages import PRIORITY_OF
from labelmill.contracts.states import ChunkState, Mode
from labelmill.core.database import db_now, reading
from labelmill.core.database.tables import OPEN_CHUNK, BatchRow, ChunkRow
from labelmill.core.jobs.tables import is_runnable

_of_its_batch = ChunkRow.batch_no == BatchRow.no
_is_owed = (ChunkRow.state == ChunkState.PENDING.value) & or_(
    ChunkRow.sent_at.is_(None), ChunkRow.sent_at <= db_now()
)  # `sent_at` lies ahead where a chunk is to be left alone for a while
_rank = case(*((BatchRow.priority == name, rank) for name, rank in PRIORITY_OF.items()), else_=99).label("rank")
_busy = (
    select(func.count())
    .select_from(ChunkRow)
    .where(_of_its_batch, OPEN_CHUNK, ChunkRow.state == ChunkState.CLAIMED.value)
    .correlate(BatchRow)
    .scalar_subquery()
    .label("busy")
)
_first_owed = (
    select(func.min(ChunkRow.number)).where(_of_its_batch, OPEN_CHUNK, _is_owed).correlate(BatchRow).scalar_subquery()
)
_sends = is_runnable(BatchRow) & (BatchRow.runs_in == Mode.REALTIME.value)
_open = select(BatchRow.id, BatchRow.no, _rank, _busy, _first_owed.label("number")).where(_sends)
_owing = _open.subquery()


def _deserving(*conditions: ColumnElement[bool]) -> Select[Any]:
    owing = _open.where(*conditions).subquery() if conditions else _owing
    return select(owing).where(owing.c.number.is_not(None)).order_by(owing.c.rank, owing.c.busy, owing.c.no).limit(1)


_DESERVING = _deserving()
_OWN = (
    select(_rank, _busy, BatchRow.model_no)
    .join(ChunkRow, _of_its_batch)
    .where(BatchRow.id == bindparam("id"), _sends, ChunkRow.number == bindparam("chunk"))
    .where(ChunkRow.state == ChunkState.PENDING.value)
)
_UNSERVED = select(_owing.c.id).where(_owing.c.number.is_not(None), _owing.c.busy == 0).limit(1)


def most_deserving_chunk(
    engine: Engine, batch_id: str, number: int, *, exclude_models: Collection[int] = ()
) -> tuple[str, int] | None:
    """The chunk that a worker should take when a message names this one.

    A message says no more than that there is work, so that the order of messages decides nothing: the batch of the
    highest priority that has the fewest chunks in work comes first, among equals the message's own. None: nothing is
    runnable, but perhaps of `exclude_models`.
    """
    wanted = _deserving(BatchRow.model_no.not_in(exclude_models)) if exclude_models else _DESERVING
    with reading(engine) as connection:
        best = connection.execute(wanted).first()
        own = connection.execute(_OWN, {"id": batch_id, "chunk": number}).first()
    if own is not None and own.model_no in exclude_models:
        own = None
    if own is not None and (best is None or (own.rank, own.busy) <= (best.rank, best.busy)):
        return batch_id, number
    return None if best is None else (best.id, best.number)


def unserved_batch(engine: Engine) -> str | None:
    """A runnable batch that has none of its chunks in work."""
    with reading(engine) as connection:
        found: str | None = connection.scalar(_UNSERVED)
        return found
