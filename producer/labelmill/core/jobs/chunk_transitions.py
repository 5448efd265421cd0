"""The only module that changes the state of a chunk; the first state is written with the INSERT of the chunk.

Claims and completions are the hot path: one statement each, compiled once, and no event. A caller that fails a chunk or
reclaims it from a dead worker writes an event with `events.note`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float, Update, bindparam, case, null, select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.states import ChunkState
from labelmill.core.database import db_now
from labelmill.core.database.tables import ChunkRow
from labelmill.core.jobs import leases

#: The counters that a transaction adds to, each by a parameter `more_…`.
COUNTERS = ("labelled", "abstained", "failed", "requests", "tokens", "cached")


def is_claimed(batch_no: int, number: int, token: str | None) -> ColumnElement[bool]:
    """The chunk is held under this token."""
    claimed = (ChunkRow.state == ChunkState.CLAIMED.value) & leases.is_held(ChunkRow, token)
    return (ChunkRow.batch_no == batch_no) & (ChunkRow.number == number) & claimed


def claim(
    connection: Connection, batch_no: int, number: int, token: str, lease_s: float, *, from_dead: bool = False
) -> bool:
    """pending → claimed. `from_dead`: also from a worker whose lease ran out. False: it is done, or another worker
    holds it."""
    values = {"of_batch": batch_no, "of_chunk": number, "under": token, "lease_s": lease_s}
    return bool(connection.execute(_CLAIM_FROM_DEAD if from_dead else _CLAIM, values).rowcount)


def _claiming(may_claim: ColumnElement[bool]) -> Update:
    lease = leases.taken(bindparam("under"), bindparam("lease_s", type_=Float))
    return (
        update(ChunkRow)
        .where(ChunkRow.batch_no == bindparam("of_batch"), ChunkRow.number == bindparam("of_chunk"), may_claim)
        .values(state=ChunkState.CLAIMED.value, attempts=ChunkRow.attempts + 1, **lease)
    )


_IS_PENDING = ChunkRow.state == ChunkState.PENDING.value
_CLAIM = _claiming(_IS_PENDING)
_CLAIM_FROM_DEAD = _claiming(_IS_PENDING | ((ChunkRow.state == ChunkState.CLAIMED.value) & leases.is_free(ChunkRow)))


_DONE, _PROGRESSED = bindparam("done", type_=Boolean), bindparam("progressed", type_=Boolean)

#: claimed → done if the parameter `done` is true; otherwise the lease is renewed. Adds to the counters.
#: Built once: building the statement each time would cost more than running it.
RECORD = (
    update(ChunkRow)
    .where(
        ChunkRow.batch_no == bindparam("of_batch"),
        ChunkRow.number == bindparam("of_chunk"),
        ChunkRow.state == ChunkState.CLAIMED.value,
        ChunkRow.lease_token == bindparam("under"),
    )
    .values(
        **{name: getattr(ChunkRow, name) + bindparam(f"more_{name}") for name in COUNTERS},
        # attempts counts claims since the last progress
        attempts=case((_PROGRESSED, 1), else_=ChunkRow.attempts),
        faults=case((_PROGRESSED, 0), else_=ChunkRow.faults),
        state=case((_DONE, ChunkState.DONE.value), else_=ChunkState.CLAIMED.value),
        lease_token=case((_DONE, null()), else_=ChunkRow.lease_token),
        lease_until=case((_DONE, null()), else_=db_now() + bindparam("lease_s")),
    )
)


def release(
    connection: Connection, batch_no: int, number: int, token: str, *, wait_s: float | None, counts: bool
) -> bool:
    """claimed → pending, by the worker that holds it. `wait_s`: the delay of the message that the caller sends for it.
    Without `counts` the claim does not count as an attempt. False: the lease was lost."""
    values: dict[str, Any] = {"sent_at": None if wait_s is None else db_now() + wait_s}
    if not counts:
        values["attempts"] = ChunkRow.attempts - 1
    return _move(connection, is_claimed(batch_no, number, token), ChunkState.PENDING, values)


def take_back(
    connection: Connection, batch_no: int, number: int, token: str | None, ran_out: ColumnElement[bool]
) -> bool:
    """claimed → pending, by recovery, once the lease `ran_out`. False: its worker renewed or completed it meanwhile."""
    return _move(connection, is_claimed(batch_no, number, token) & ran_out, ChunkState.PENDING, {"sent_at": None})


def fail(connection: Connection, batch_no: int, number: int, token: str, failed_rows: int) -> bool:
    """claimed → failed: it cannot be worked on at all. False: the lease was lost."""
    values = {"failed": ChunkRow.failed + failed_rows}
    return _move(connection, is_claimed(batch_no, number, token), ChunkState.FAILED, values)


def lock_held(connection: Connection, which: ColumnElement[bool]) -> list[int]:
    """The numbers of the chunks that workers hold, who can neither record nor release them before this transaction
    ends."""
    held = (ChunkRow.state == ChunkState.CLAIMED.value) & ~leases.is_free(ChunkRow)
    return list(connection.scalars(select(ChunkRow.number).where(which, held).with_for_update()))


def run_again(connection: Connection, which: ColumnElement[bool]) -> None:
    """done, failed → pending, and claimed by a worker that died, by a retry of the batch. What a live worker holds must
    not be among them: it still records answers that were paid for."""
    values = {"failed": 0, "attempts": 0, "faults": 0, "sent_at": None}
    _move(connection, which, ChunkState.PENDING, values)


def _move(connection: Connection, which: ColumnElement[bool], new: ChunkState, values: dict[str, Any]) -> bool:
    changes = {"state": new.value} | leases.RELEASED | values
    return bool(connection.execute(update(ChunkRow).where(which).values(changes)).rowcount)
