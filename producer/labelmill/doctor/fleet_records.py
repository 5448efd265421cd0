"""Checks of the workers' rows in the database: workers that share a name, and workers that died.

Every run of a worker has its own row, which it renews every few seconds and removes when it ends in order.
"""

from __future__ import annotations

import time
from collections import Counter

from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.core.database import db_now, reading
from labelmill.core.database.tables import WorkerRow
from labelmill.doctor.checks import Check, ok, warning

LIVE_S = 30.0  #: A worker that has not renewed its row for so long has died or hangs.
_LOST_S = 3600.0  #: Workers that died earlier are not reported.
_RENEWED_WITHIN_S = 8.0
_POLL_S = 0.5
_SHOWN = 3


def check_worker_records(engine: Engine) -> list[Check]:
    """Read the workers' rows. Takes some seconds where a name seems to be in use twice. Raises DatabaseUnavailable."""
    return [_names(engine), _lost(engine)]


def _names(engine: Engine) -> Check:
    before = _live(engine)
    deadline = time.monotonic() + (_RENEWED_WITHIN_S if _repeated(before) else 0)
    while time.monotonic() < deadline:
        # a worker that was killed and restarted has two rows as well, but one of them is not renewed
        time.sleep(_POLL_S)
        renewed = {run: record for run, record in _live(engine).items() if record != before.get(run)}
        if names := _repeated(renewed):
            return _shared(names)
    return ok("worker names", "every worker has one of its own")


def _shared(names: list[str]) -> Check:
    summary = f"several workers are called {', '.join(names[:_SHOWN])}: Flower takes them for one"
    return warning("worker names", summary, "start each worker with a name of its own: -n NAME@%h")


def _live(engine: Engine) -> dict[str, tuple[str, float]]:
    """For each live run of a worker its name, and when it was last seen."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(WorkerRow.id, WorkerRow.name, WorkerRow.seen_at).where(WorkerRow.seen_at > db_now() - LIVE_S)
        )
        return {row.id: (row.name, row.seen_at) for row in rows}


def _repeated(runs: dict[str, tuple[str, float]]) -> list[str]:
    counts = Counter(name for name, _ in runs.values())
    return sorted(name for name, count in counts.items() if count > 1)


def _lost(engine: Engine) -> Check:
    with reading(engine) as connection:
        rows = connection.execute(
            select(WorkerRow.name, (db_now() - WorkerRow.seen_at).label("ago_s")).where(
                WorkerRow.seen_at > db_now() - _LOST_S
            )
        ).all()
    ago_s: dict[str, float] = {}
    for name, seconds in rows:
        ago_s[name] = min(seconds, ago_s.get(name, seconds))  # the newest row of a restarted worker counts
    lost = sorted((seconds, name) for name, seconds in ago_s.items() if seconds > LIVE_S)
    if not lost:
        return ok("lost workers", "none of the last hour")
    shown = ", ".join(f"{name} ({seconds / 60:.0f} min ago)" for seconds, name in lost[:_SHOWN])
    many = f"{len(lost)} worker{'s' if len(lost) > 1 else ''} died without ending in order"
    return warning("lost workers", f"{many}: {shown}", "start them again; see their logs, or the kernel's for memory")
