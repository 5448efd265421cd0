"""Named leases, for work that one process of the fleet does at a time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import case, insert, or_, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from labelmill.core.database import db_now, has_passed, reading, writing
from labelmill.core.database.tables import LockRow

_CLOCKS_WANDER_S = 5.0  #: A clock that is put right by so little was not set back.


@dataclass(frozen=True)
class Taken:
    """This process has the lease."""

    token: str
    free_for_s: float  #: For how long nobody had it. Below 0: the database's clock was set back by more than as much.


@dataclass(frozen=True)
class Held:
    """Another process has it."""

    for_s: float  #: So much longer.


def take_lease(engine: Engine, name: str, seconds: float) -> Taken | Held:
    """Take a named lease for `seconds`. Only a lease that is free costs a write."""
    token = secrets.token_hex(8)
    is_free = or_(LockRow.token.is_(None), has_passed(LockRow.until, far_s=seconds + _CLOCKS_WANDER_S))
    ahead_s = (LockRow.until - db_now()).label("ahead_s")
    with reading(engine) as connection:
        row = connection.execute(select(is_free.label("is_free"), ahead_s).where(LockRow.name == name)).first()
    if row is None:
        return _first(engine, name, token, seconds)
    if not row.is_free:
        return Held(max(0.0, row.ahead_s))
    # a lease that was given back early has been free for no time at all
    given_back = (LockRow.token.is_(None)) & (LockRow.until > db_now())
    with writing(engine) as connection:
        mine = (LockRow.name == name) & is_free
        free_for_s = connection.scalar(select(case((given_back, 0.0), else_=db_now() - LockRow.until)).where(mine))
        values = {"token": token, "until": db_now() + seconds}
        if connection.execute(update(LockRow).where(mine).values(values)).rowcount:
            return Taken(token, float(free_for_s or 0.0))
    return Held(seconds)


def _first(engine: Engine, name: str, token: str, seconds: float) -> Taken | Held:
    try:
        with writing(engine) as connection:
            connection.execute(insert(LockRow).values(name=name, token=token, until=db_now() + seconds))
    except IntegrityError:
        return Held(seconds)
    return Taken(token, 0.0)


def hold_lease(engine: Engine, name: str, token: str, seconds: float) -> None:
    """Keep a named lease for `seconds` from now on."""
    with writing(engine) as connection:
        mine = (LockRow.name == name) & (LockRow.token == token)
        connection.execute(update(LockRow).where(mine).values(until=db_now() + seconds))


def give_lease_back(engine: Engine, name: str, token: str) -> None:
    """Let another process take the lease at once, if it is this process' still."""
    with writing(engine) as connection:
        connection.execute(update(LockRow).where(LockRow.name == name, LockRow.token == token).values(token=None))
