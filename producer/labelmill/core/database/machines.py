"""SQLite serves the processes of one machine: which machine uses a database, and how another one detects that.

Workers write a heartbeat into the database itself. It is watched for changes and not compared with a clock, because two
machines' clocks may differ. Machines are distinguished by their kernels' boot ids: containers on one kernel are one
machine, and a machine that was restarted finds a heartbeat that no longer changes.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.errors import DatabaseUnavailable, DatabaseUnsuitable
from labelmill.core.database.clock import db_now
from labelmill.core.database.connecting import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables.locks import LockRow

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HEARTBEAT_S = 3.0
WATCH_S = 4 * HEARTBEAT_S
_LONG_AGO_S = 600.0  #: An older heartbeat is stale: clocks that differ by so much are reported by `doctor`.
_POLL_S = 0.25
_NAME = "machine"

_IN_USE = (
    "SQLite serves the processes of one machine, and workers of another machine use this database now: "
    "use PostgreSQL (LABELMILL_DATABASE_URL=postgresql://…), or stop the workers there"
)


def this_machine() -> str | None:
    """The boot id of the running kernel; None on systems other than Linux: then nothing is compared."""
    try:
        return BOOT_ID.read_text().strip().replace("-", "")[:32] or None
    except OSError:
        return None


def require_only_this_machine(engine: Engine, *, watch_s: float | None = None) -> None:
    """Raise DatabaseUnsuitable when workers of another machine use this SQLite database. Where there is a recent
    heartbeat of another machine, watches it for `watch_s` (12 s)."""
    machine = this_machine() if dialect_of(engine).serves_one_machine else None
    if machine is None:
        return
    first = _heartbeat(engine)
    if first is None or first.token in (None, machine) or abs(first.age_s) > _LONG_AGO_S:
        return
    ends_at = time.monotonic() + (WATCH_S if watch_s is None else watch_s)
    while time.monotonic() < ends_at:
        time.sleep(_POLL_S)
        now = _heartbeat(engine)
        if now is None or now.token in (None, machine):
            return
        if now.until != first.until:
            raise DatabaseUnsuitable(_IN_USE)
    _forget(engine, first)


def renew_machine_heartbeat(engine: Engine) -> None:
    """Write a heartbeat of this machine's workers. Raises DatabaseUnsuitable as `require_only_this_machine`."""
    machine = this_machine() if dialect_of(engine).serves_one_machine else None
    if machine is None:
        return
    now = _heartbeat(engine)
    if now is not None and now.token == machine and 0 <= now.age_s < HEARTBEAT_S / 2:
        return  # another process of this machine has just written it
    if not _write(engine, machine):
        require_only_this_machine(engine)
        if not _write(engine, machine):
            raise DatabaseUnsuitable(_IN_USE)


def _heartbeat(engine: Engine) -> Row[str | None, float, float] | None:
    with reading(engine) as connection:
        return connection.execute(
            select(LockRow.lease_token, LockRow.lease_until, (db_now() - LockRow.lease_until).label("age_s")).where(
                LockRow.name == _NAME
            )
        ).first()


def _write(engine: Engine, machine: str) -> bool:
    free = or_(
        LockRow.lease_token == machine, LockRow.lease_token.is_(None), LockRow.lease_until < db_now() - _LONG_AGO_S
    )
    values = {"lease_token": machine, "lease_until": db_now()}
    with writing(engine) as connection:
        if connection.execute(update(LockRow).where(LockRow.name == _NAME, free).values(values)).rowcount:
            return True
        if connection.scalar(select(LockRow.name).where(LockRow.name == _NAME)):
            return False
        try:
            connection.execute(insert(LockRow).values(values | {"name": _NAME}))
        except IntegrityError:
            return False
    return True


def _forget(engine: Engine, heartbeat: Row[str | None, float, float]) -> None:
    # so that the next command need not watch; where this cannot be written, the next command watches again
    try:
        with writing(engine) as connection:
            same_heartbeat = (
                LockRow.name == _NAME,
                LockRow.lease_token == heartbeat.token,
                LockRow.lease_until == heartbeat.until,
            )
            connection.execute(update(LockRow).where(*same_heartbeat).values(lease_token=None))
    except DatabaseUnavailable:
        return
