"""The one place where the state of a chunk is written, but for its first one, with which it is inserted.

Claims and closings are the hot path: one statement each, made once, and no line in `events`. Whoever fails or takes
back a chunk leaves a line there, with `events.note`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, bindparam, case, null, update
from sqlalchemy.engine import Connection

from labelmill.contracts.states import ChunkState
from labelmill.core.database import db_now
from labelmill.core.database.tables import ChunkRow
from labelmill.core.jobs import leases

#: What a transaction adds to a chunk, each by a parameter `more_…`.
COUNTERS = ("labelled", "abstained", "failed", "requests", "tokens", "cached")


def is_claimed(batch_no: int, number: int, token: str | None) -> ColumnElement[bool]:
    """The chunk is held under this token."""
    claimed = (ChunkRow.state == ChunkState.CLAIMED.value) & leases.is_held(ChunkRow, token)
    return (ChunkRow.batch_no == batch_no) & (ChunkRow.number == number) & claimed


def claim(connection: Connection, batch_no: int, number: int, token: str, lease_s: float) -> bool:
    """pending → claimed. False: it is done, or another worker has it."""
    statement = (
        update(ChunkRow)
        .where(ChunkRow.batch_no == batch_no, ChunkRow.number == number, ChunkRow.state == ChunkState.PENDING.value)
        .values(state=ChunkState.CLAIMED.value, attempts=ChunkRow.attempts + 1, **leases.taken(token, lease_s))
    )
    return bool(connection.execute(statement).rowcount)


_DONE, _PROGRESSED = bindparam("done", type_=Boolean), bindparam("progressed", type_=Boolean)

#: claimed → done by the parameter `done`; otherwise the lease is renewed. What came of it is added to its counters.
#: Made once: building a statement anew would cost more than running it.
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
    """claimed → pending, by the worker that holds it. `wait_s`: a message is sent to come then. Without `counts` the
    claim was no attempt. False: the lease was lost."""
    values: dict[str, Any] = {"sent_at": None if wait_s is None else db_now() + wait_s}
    if not counts:
        values["attempts"] = ChunkRow.attempts - 1
    return _move(connection, is_claimed(batch_no, number, token), ChunkState.PENDING, values)


def take_back(
    connection: Connection, batch_no: int, number: int, token: str | None, ran_out: ColumnElement[bool]
) -> bool:
    """claimed → pending, by recovery, once the lease `ran_out`. False: its worker renewed or closed it meanwhile."""
    return _move(connection, is_claimed(batch_no, number, token) & ran_out, ChunkState.PENDING, {"sent_at": None})


def fail(connection: Connection, batch_no: int, number: int, token: str, failed_rows: int) -> bool:
    """claimed → failed: it cannot be worked on at all. False: the lease was lost."""
    values = {"failed": ChunkRow.failed + failed_rows}
    return _move(connection, is_claimed(batch_no, number, token), ChunkState.FAILED, values)


def run_again(connection: Connection, which: ColumnElement[bool]) -> None:
    """done, failed → pending, by a retry of the batch. One that a worker of the stopped batch still holds is taken from
    it: its errors go, so must its counts."""
    values = {"failed": 0, "attempts": 0, "faults": 0, "sent_at": None}
    _move(connection, which, ChunkState.PENDING, values)


def _move(connection: Connection, which: ColumnElement[bool], new: ChunkState, values: dict[str, Any]) -> bool:
    changes = {"state": new.value} | leases.RELEASED | values
    return bool(connection.execute(update(ChunkRow).where(which).values(changes)).rowcount)
