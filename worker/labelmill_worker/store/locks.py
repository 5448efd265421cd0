"""Named leases, for work that one process of the fleet does at a time."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, insert, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import LockRow
from labelmill.core.jobs import leases

_CLOCKS_WANDER_S = 5.0  #: A clock that is corrected by so little was not set back.


@dataclass(frozen=True)
class Taken:
    """This process has the lease."""

    token: str
    free_for_s: float  #: For how long it was free. Below 0: the database's clock was set back by more than as much.


@dataclass(frozen=True)
class Held:
    """Another process has it."""

    for_s: float  #: So much longer.


def take_lease(engine: Engine, name: str, seconds: float) -> Taken | Held:
    """Take a named lease for `seconds`. Only a lease that is free costs a write."""
    max_ahead_s = seconds + _CLOCKS_WANDER_S
    is_free = leases.is_free(LockRow, max_ahead_s=max_ahead_s)
    ahead_s = (LockRow.lease_until - db_now()).label("ahead_s")
    with reading(engine) as connection:
        row = connection.execute(select(is_free.label("is_free"), ahead_s).where(LockRow.name == name)).first()
    if row is None:
        return _first(engine, name, seconds)
    if not row.is_free:
        return Held(max(0.0, row.ahead_s))
    # a lease that was released early has been free for no time at all
    released = (LockRow.lease_token.is_(None)) & (LockRow.lease_until > db_now())
    with writing(engine) as connection:
        is_named = LockRow.name == name
        free_for_s = connection.scalar(
            select(case((released, 0.0), else_=db_now() - LockRow.lease_until)).where(is_named, is_free)
        )
        if (token := leases.claim(connection, LockRow, is_named, lease_s=seconds, max_ahead_s=max_ahead_s)) is not None:
            return Taken(token, float(free_for_s or 0.0))
    return Held(seconds)


def _first(engine: Engine, name: str, seconds: float) -> Taken | Held:
    token = leases.new_token()
    try:
        with writing(engine) as connection:
            connection.execute(insert(LockRow).values(name=name, lease_token=token, lease_until=db_now() + seconds))
    except IntegrityError:
        return Held(seconds)
    return Taken(token, 0.0)


def hold_lease(engine: Engine, name: str, token: str, seconds: float) -> None:
    """Keep a named lease for `seconds` from now on."""
    with writing(engine) as connection:
        leases.renew(connection, LockRow, token, LockRow.name == name, lease_s=seconds)


def release_lease(engine: Engine, name: str, token: str) -> None:
    """Let another process take the lease at once, if it is this process' still."""
    with writing(engine) as connection:
        leases.write(connection, LockRow, token, LockRow.name == name, lease_token=None)
