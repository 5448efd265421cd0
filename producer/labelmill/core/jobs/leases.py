"""The one implementation of leases: claim → write and renew under the token → release, by the database's clock.

A row of a `LeaseColumns` table is held by whoever knows its `lease_token`, until `lease_until`. A worker that was
frozen or cut off finds another token there, and nothing that it writes arrives. Chunks, jobs, what is to be done at
Mistral for models and the fleet's named locks are all leased by these functions. What else must hold (a job is open, a
chunk is pending) is the caller's condition.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import ColumnElement, or_, update
from sqlalchemy.engine import Connection

from labelmill.core.database.clock import FAR_LEASE_S, db_now, has_passed
from labelmill.core.database.tables.base import LeaseColumns

Leased = type[LeaseColumns]

#: What a row without a lease has.
RELEASED: dict[str, None] = {"lease_token": None, "lease_until": None}


def new_token() -> str:
    """A word that nobody else knows."""
    return secrets.token_hex(8)


def taken(token: str, lease_s: float) -> dict[str, Any]:
    """What a row has that is claimed now."""
    return {"lease_token": token, "lease_until": db_now() + lease_s}


def is_free(table: Leased, *, far_s: float = FAR_LEASE_S) -> ColumnElement[bool]:
    """Nobody holds the lease, or it ran out. `far_s`: no lease lasts longer, so one that lies further ahead was taken
    before the clock was set back."""
    return or_(table.lease_token.is_(None), table.lease_until.is_(None), has_passed(table.lease_until, far_s=far_s))


def is_held(table: Leased, token: str | None) -> ColumnElement[bool]:
    """The lease was taken with this token, and by nobody since. It may have run out: then nobody needed it yet."""
    return table.lease_token == token


def claim(
    connection: Connection,
    table: Leased,
    *conditions: ColumnElement[bool],
    lease_s: float,
    far_s: float = FAR_LEASE_S,
    **values: Any,
) -> str | None:
    """Take the lease on the row that the conditions name, if it is free. Returns the token to write under; None: it is
    not free, or there is no such row."""
    token = new_token()
    statement = update(table).where(*conditions, is_free(table, far_s=far_s))
    changes = _columns(table, taken(token, lease_s) | values)
    return token if connection.execute(statement.values(changes)).rowcount else None


def write(
    connection: Connection, table: Leased, token: str | None, *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Write to the row under its lease; with `**RELEASED` the lease is given back. False: it was lost, or a condition
    does not hold; nothing was written."""
    statement = update(table).where(*conditions, is_held(table, token))
    return bool(connection.execute(statement.values(_columns(table, values))).rowcount)


def renew(connection: Connection, table: Leased, token: str, *conditions: ColumnElement[bool], lease_s: float) -> bool:
    """Keep the lease for `lease_s` from now on. False: it was lost."""
    return write(connection, table, token, *conditions, lease_until=db_now() + lease_s)


def _columns(table: Leased, values: dict[str, Any]) -> dict[Any, Any]:
    """Values by column: some tables call theirs by another name."""
    return {getattr(table, name): value for name, value in values.items()}
