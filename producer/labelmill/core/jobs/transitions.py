"""The only module that writes the state of a job, of every kind, for services and workers alike.

`create_job` writes a job in its first state, `move_job` takes it to another one: by `UPDATE … WHERE state = :expected`,
with the line in `events` in the same transaction. The table follows from the state. A chunk's transitions are in
`chunk_transitions`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, insert, update
from sqlalchemy.engine import Connection

from labelmill.contracts.job_kinds import ENDED, moves_to, states_before
from labelmill.contracts.states import State
from labelmill.core.database.tables import utc_now
from labelmill.core.database.tables.base import Leased
from labelmill.core.jobs import leases
from labelmill.core.jobs.events import record_transition
from labelmill.core.jobs.metadata import write_metadata
from labelmill.core.jobs.tables import table_of


def create_job(
    connection: Connection,
    job_id: str,
    state: State,
    message: str,
    *,
    metadata: Mapping[str, str] = MappingProxyType({}),
    **values: Any,
) -> int:
    """Write a new job. Returns its number."""
    row = {"id": job_id, "state": state.value, "created_at": utc_now()} | values
    table = table_of(state)
    number = connection.execute(insert(table).values(row).returning(table.no)).scalar_one()
    write_metadata(connection, job_id, metadata)
    record_transition(connection, job_id, state, message)
    return number


def move_job(
    connection: Connection,
    job_id: str,
    new: State,
    *conditions: ColumnElement[bool],
    old: State | Collection[State] | None = None,
    token: str | None = None,
    message: str = "",
    chunk: int | None = None,
    **values: Any,
) -> bool:
    """Move a job to the state `new` and write the event. False: it was in another state, the lease was lost or a
    condition did not hold; nothing was written.

    `old`: the state or states to start from; None: every one that has this transition. `token`: of the lease under
    which a worker writes. `chunk`: the one that gave the reason. A job that ends gives its lease up; one that ended
    and goes on has no end any more.
    """
    sources = states_before(new) if old is None else frozenset([old] if isinstance(old, str) else old)
    for source in sources:
        if not moves_to(source, new):
            raise ValueError(f"no move from {source} to {new}")
    table = table_of(new)
    changes: dict[str, Any] = {"state": new.value, "finished_at": utc_now() if new in ENDED else None}
    if issubclass(table, Leased):
        changes["faults"] = 0
        if new in ENDED:
            changes |= leases.RELEASED | {"next_look_at": None}
    if sources & ENDED and new not in ENDED:
        changes |= {"error": None, "error_code": None}
    expected = table.state.in_(sorted(source.value for source in sources))
    statement = update(table).where(table.id == job_id, expected, *conditions)
    if token is not None:
        if not issubclass(table, Leased):
            raise TypeError(f"a job of {table.__tablename__} has no lease")
        statement = statement.where(leases.is_held(table, token))
    if not connection.execute(statement.values(changes | values)).rowcount:
        return False
    record_transition(connection, job_id, new, message, chunk=chunk)
    return True
