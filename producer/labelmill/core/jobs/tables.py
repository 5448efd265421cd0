"""The table of each kind of job, and which of its rows may be worked on: conditions of queries, from `job_kinds`."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import ColumnElement

from labelmill.contracts.job_kinds import KINDS, Kind, Recovery, kind_of_state, states_before
from labelmill.contracts.states import State
from labelmill.core.database.tables.base import JobRow, LeasedJobRow

#: The table of any job.
AnyJobTable = type[JobRow]

#: The table of a job that is worked on under a lease of its own. A batch's chunks have leases instead.
JobTable = type[LeasedJobRow]
J = TypeVar("J", bound=LeasedJobRow)


def _tables(parent: AnyJobTable) -> list[AnyJobTable]:
    return [
        table
        for subclass in parent.__subclasses__()
        for table in ([subclass] if hasattr(subclass, "__table__") else _tables(subclass))
    ]


_TABLE_BY_KIND: dict[Kind, AnyJobTable] = {table.kind: table for table in _tables(JobRow)}
TABLE_OF: dict[Kind, AnyJobTable] = {kind: _TABLE_BY_KIND[kind] for kind in KINDS if kind in _TABLE_BY_KIND}
LEASED: dict[Kind, JobTable] = {kind: table for kind, table in TABLE_OF.items() if issubclass(table, LeasedJobRow)}

#: The tasks that work on a job under its lease, and the tables of these jobs.
LEASED_TASKS: tuple[tuple[str, JobTable], ...] = tuple((KINDS[kind].task, table) for kind, table in LEASED.items())

for _kind in KINDS.values():
    if _kind.kind not in TABLE_OF:
        raise TypeError(f"no table of core/database/tables has the kind of job {_kind.kind.value}")
    if (_kind.kind in LEASED) is not (_kind.recovery is Recovery.BY_LEASE):
        raise TypeError(f"a job is recovered by its lease where its table is a LeasedJobRow, unlike {_kind.kind.value}")
    if lacking := [name for name in _kind.inner_batches if not hasattr(TABLE_OF[_kind.kind], name)]:
        raise TypeError(f"the table of {_kind.kind.value} has no column {', '.join(lacking)} for its inner batches")


def table_of(state: State) -> AnyJobTable:
    """The table of the jobs that have such states."""
    return TABLE_OF[kind_of_state(state).kind]


def is_open(table: AnyJobTable) -> ColumnElement[bool]:
    """The job has not ended."""
    return table.state.in_(_values(KINDS[table.kind].open))


def is_runnable(table: AnyJobTable) -> ColumnElement[bool]:
    """Workers can work on the job: it has not ended, and does not wait for a person."""
    return table.state.in_(_values(KINDS[table.kind].runnable))


def is_cancellable(table: AnyJobTable) -> ColumnElement[bool]:
    """The job is open, or can be resumed, as a paused batch can."""
    cancelled = KINDS[table.kind].cancelled
    return table.state.in_(_values(states_before(cancelled) if cancelled else frozenset()))


def _values(states: frozenset[State]) -> list[str]:
    return sorted(state.value for state in states)
