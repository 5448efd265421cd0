"""Checks of the work in the database: recovery, leases, stalled jobs, recently dropped messages."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.states import BatchState, ChunkState
from labelmill.core.database import db_now, reading
from labelmill.core.database.tables import (
    OPEN_CHUNK,
    BatchRow,
    ChunkRow,
    DeadLetterRow,
    LockRow,
    ModelRow,
    utc_now,
)
from labelmill.core.jobs.tables import LEASED, is_runnable
from labelmill.core.remote_models import read_list, warnings_of
from labelmill.doctor.checks import Check, ok, warning

LATE_S = 60.0  #: A sweep, or the recovery of an expired lease, that is later than this counts as missing.
_RECENT = timedelta(days=1)
_ABANDONED = timedelta(hours=1)
_SHOWN_MODELS = 3
_START_A_WORKER = "start a worker, and look at the logs of those that run: each of them sweeps"


def check_work(engine: Engine) -> list[Check]:
    """Read the state of the work. Raises DatabaseUnavailable."""
    with reading(engine) as connection:
        return [
            _sweeps(connection),
            _leases(connection),
            _jobs(connection),
            _dropped(connection),
            _models(connection),
        ]


def _sweeps(connection: Connection) -> Check:
    late_s = connection.scalar(select(db_now() - LockRow.lease_until).where(LockRow.name == "sweep"))
    if late_s is None:
        return warning("recovery", "no sweep was ever made: what Redis loses stays lost", _START_A_WORKER)
    if late_s > LATE_S:
        summary = f"the last sweep was some {late_s:.0f} s ago: what Redis loses stays lost"
        return warning("recovery", summary, _START_A_WORKER)
    return ok("recovery", "sweeps come as they should")


def _leases(connection: Connection) -> Check:
    open_batches = select(BatchRow.no).where(is_runnable(BatchRow))
    late = db_now() - LATE_S
    chunks = connection.scalar(
        select(func.count())
        .select_from(ChunkRow)
        .where(ChunkRow.batch_no.in_(open_batches), OPEN_CHUNK, ChunkRow.state == ChunkState.CLAIMED.value)
        .where(ChunkRow.lease_until < late)
    )
    jobs = sum(
        connection.scalar(select(func.count()).select_from(table).where(is_runnable(table), table.lease_until < late))
        or 0
        for table in LEASED.values()
    )
    if chunks or jobs:
        summary = (
            f"leases that ran out over {LATE_S:.0f} s ago and were not taken back: {chunks} of chunks, {jobs} of jobs"
        )
        return warning("leases", summary, _START_A_WORKER)
    return ok("leases", "none has outlived its worker")


def _jobs(connection: Connection) -> Check:
    stalled: list[str] = []
    late = db_now() - 2 * LATE_S
    for table in LEASED.values():
        unleased = table.lease_until.is_(None) | (table.lease_until < late)
        stalled += connection.scalars(
            select(table.id).where(is_runnable(table), unleased, table.next_look_at < late).limit(20)
        )
    claimed = select(ChunkRow.number).where(
        ChunkRow.batch_no == BatchRow.no, OPEN_CHUNK, ChunkRow.state == ChunkState.CLAIMED.value
    )
    waiting = select(ChunkRow.number).where(
        ChunkRow.batch_no == BatchRow.no,
        OPEN_CHUNK,
        ChunkRow.state == ChunkState.PENDING.value,
        ChunkRow.sent_at < late,
    )
    stalled += connection.scalars(
        select(BatchRow.id).where(is_runnable(BatchRow), ~claimed.exists(), waiting.exists()).limit(20)
    )
    broken = list(
        connection.scalars(
            select(BatchRow.id)
            .where(BatchRow.state == BatchState.SUBMITTING.value, BatchRow.created_at < utc_now() - _ABANDONED)
            .limit(20)
        )
    )
    if stalled:
        return warning(
            "jobs",
            f"{len(stalled)} jobs have been stalled for minutes: {', '.join(stalled[:3])}",
            "start workers; look at their logs",
        )
    if broken:
        return warning(
            "jobs",
            f"{len(broken)} submissions were interrupted: {', '.join(broken[:3])}",
            "submit again with the same --idempotency-key, or `labelmill cancel` them",
        )
    return ok("jobs", "none is stalled")


def _dropped(connection: Connection) -> Check:
    count = connection.scalar(
        select(func.count()).select_from(DeadLetterRow).where(DeadLetterRow.at > utc_now() - _RECENT)
    )
    if count:
        summary = f"workers dropped {count} messages in the last 24 hours"
        return warning("dead letters", summary, "see `labelmill dead-letters`: who else writes to this Redis?")
    return ok("dead letters", "no message was dropped in the last 24 hours")


def _models(connection: Connection) -> Check:
    """Versions whose model Mistral retires, or whose name means another model by now, as workers saw its list last."""
    listed = read_list(connection)
    rows = connection.execute(
        select(ModelRow.__table__).where(ModelRow.state == "ready").order_by(ModelRow.no)
    ).mappings()
    warnings = [said for row in rows for said in warnings_of(ModelRow(**row), listed)]
    if not warnings:
        told = (
            "Mistral's list of models has not been read yet" if not listed else "no model in use is about to be retired"
        )
        return ok("models", told)
    more = f"; and {len(warnings) - _SHOWN_MODELS} more" if len(warnings) > _SHOWN_MODELS else ""
    summary = "; ".join(warnings[:_SHOWN_MODELS]) + more
    return warning(
        "models", summary, "train these versions again, and archive the old ones: `labelmill models archive REF`"
    )
