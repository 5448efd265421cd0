"""The one implementation of leases: claim → write and renew under the token → release, by the database's clock.

A row of a `LeaseColumns` table is held by the process that knows its `lease_token`, until `lease_until`. A worker that
was frozen or cut off finds another token in the row, and its writes change nothing. Chunks, jobs, the remote actions of
models and the fleet's named locks are all leased by these functions. Further conditions (a job is open, a chunk is
pending) are passed by the caller.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, or_, update
from sqlalchemy.engine import Connection

from labelmill.contracts.errors import Retryable
from labelmill.core.database.clock import MAX_LEASE_S, db_now, has_passed
from labelmill.core.database.tables.base import LeaseColumns

LeaseTable = type[LeaseColumns]


class LeaseLost(Retryable):
    """Another worker has it, or may have it by now, or it has ended: nothing more may be written for it here."""

    code = "lease_lost"


RENEWALS_PER_LEASE = 3  #: A lease is renewed so often before it would run out, of a chunk as of a job.

#: The values of a row without a lease.
RELEASED: dict[str, None] = {"lease_token": None, "lease_until": None}


def new_token() -> str:
    """A random token for one lease."""
    return secrets.token_hex(8)


def taken(token: str | BindParameter[str], lease_s: float | BindParameter[float]) -> dict[str, Any]:
    """The values of a row that is claimed now."""
    return {"lease_token": token, "lease_until": db_now() + lease_s}


def is_free(table: LeaseTable, *, max_ahead_s: float = MAX_LEASE_S) -> ColumnElement[bool]:
    """Nobody holds the lease, or it ran out. `max_ahead_s`: no lease lasts longer, so one that runs out later was taken
    before the clock was set back."""
    return or_(
        table.lease_token.is_(None), table.lease_until.is_(None), has_passed(table.lease_until, max_ahead_s=max_ahead_s)
    )


def is_held(table: LeaseTable, token: str | None) -> ColumnElement[bool]:
    """The lease was taken with this token and not claimed again since. It may have run out in the meantime."""
    return table.lease_token == token


def claim(
    connection: Connection,
    table: LeaseTable,
    *conditions: ColumnElement[bool],
    lease_s: float,
    max_ahead_s: float = MAX_LEASE_S,
    **values: Any,
) -> str | None:
    """Take the lease on the row that the conditions name, if it is free. Returns the token to write under; None: it is
    not free, or there is no such row."""
    token = new_token()
    statement = update(table).where(*conditions, is_free(table, max_ahead_s=max_ahead_s))
    changes = _columns(table, taken(token, lease_s) | values)
    return token if connection.execute(statement.values(changes)).rowcount else None


def write(
    connection: Connection, table: LeaseTable, token: str | None, *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Write to the row under its lease; `**RELEASED` releases the lease. False: the lease was lost, or a condition does
    not hold; nothing was written."""
    statement = update(table).where(*conditions, is_held(table, token))
    return bool(connection.execute(statement.values(_columns(table, values))).rowcount)


def renew(
    connection: Connection, table: LeaseTable, token: str, *conditions: ColumnElement[bool], lease_s: float
) -> bool:
    """Keep the lease for `lease_s` from now on. False: it was lost."""
    return write(connection, table, token, *conditions, lease_until=db_now() + lease_s)


def _columns(table: LeaseTable, values: dict[str, Any]) -> dict[Any, Any]:
    """Values by column: some tables name their lease columns differently."""
    return {getattr(table, name): value for name, value in values.items()}
