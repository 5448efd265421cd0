"""Why a job makes no progress: the field `waiting_for` of its status document. A few reads by index, and none once it
has ended."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.documents.parts import WaitingFor
from labelmill.contracts.ids import Kind
from labelmill.contracts.job_kinds import ENDED, KINDS
from labelmill.contracts.states import BatchState, ChunkState, TrainingState
from labelmill.core.database import db_now
from labelmill.core.database.tables import (
    OPEN_CHUNK,
    BatchRow,
    ChunkRow,
    DelayRow,
    UnableWorkerRow,
    WorkerRow,
)
from labelmill.core.jobs.delays import REDIS_SUBJECT, DelayReason, describe_delay, model_subject
from labelmill.core.jobs.tables import LEASED, is_open, is_runnable
from labelmill.services.jobs.progress import batches_of
from labelmill.services.jobs.remote_jobs import waiting_for_jobs
from labelmill.services.submissions.heartbeat import INTERRUPTED_S

_LIVE_S = 30.0  #: A worker renews its row every 5 s.
_SHOWN = 3
_MAX_DELAY_S = 600.0  #: No delay is recorded for longer: a later end was written before the clock was set back.


def waiting_for(connection: Connection, kind: Kind, row: RowMapping) -> WaitingFor | None:
    """`{"reason", "message", "since"}`; None: the job has ended, or makes progress. Reasons: `approval`,
    `submission_interrupted`, `no_worker`, `worker_unable`, `other_work`, `remote_batch`, those of `DelayReason`.
    `since` is null where it is not known."""
    state = row["state"]
    if state in ENDED:
        return None
    if state == BatchState.SUBMITTING.value:
        return _interrupted(connection, row)
    if state == TrainingState.AWAITING_APPROVAL.value:
        return _waiting("approval", f"somebody has to approve it: labelmill approve {row['id']}")
    job_id = row["id"]
    kind, row = _at_work(connection, kind, row)
    queue = KINDS[kind].queue
    workers = _live_workers(connection, queue)
    if (delay := _delay(connection, kind, row, job_id, workers)) is not None:
        return delay
    if kind is Kind.BATCH and (at_mistral := waiting_for_jobs(connection, row)) is not None:
        return at_mistral
    if _is_held(connection, kind, row):
        return None
    if not workers:
        return _waiting(
            "no_worker", f"no worker serves the queue {queue}: start one; `labelmill doctor` tells what runs"
        )
    return _why_unable(connection, kind, row, workers) or _other_work(connection, kind, row)


def _interrupted(connection: Connection, row: RowMapping) -> WaitingFor | None:
    """A batch whose submission was killed: nothing else writes the rest of its rows."""
    seen_at = row["submitter_seen_at"]
    if seen_at is None or not connection.scalar(select(db_now() - INTERRUPTED_S > seen_at)):
        return None
    resume = "submit it again under its key, or " if row["idempotency_key"] is not None else ""
    return _waiting(
        "submission_interrupted",
        f"its submission was interrupted: {resume}cancel it: labelmill cancel {row['id']}",
        datetime.fromtimestamp(seen_at, UTC),
    )


def _waiting(reason: str, message: str, since: datetime | None = None) -> WaitingFor:
    return {"reason": reason, "message": message, "since": since.isoformat(timespec="seconds") if since else None}


def _delay(connection: Connection, kind: Kind, row: RowMapping, job_id: str, workers: list[str]) -> WaitingFor | None:
    """The delay that workers report for the job."""
    subjects = [job_id, REDIS_SUBJECT]
    if kind is Kind.BATCH:
        subjects.append(model_subject(row["model_no"]))
    rows = connection.execute(
        select(DelayRow.__table__, WorkerRow.name)
        .join(WorkerRow, WorkerRow.id == DelayRow.worker_id, isouter=True)
        .where(DelayRow.subject.in_(subjects), DelayRow.until.between(db_now(), db_now() + _MAX_DELAY_S))
        .order_by(DelayRow.since)
    ).mappings()
    delays = list(rows)
    if not delays:
        return None
    first = delays[0]
    since = datetime.fromtimestamp(first["since"], UTC)
    message = describe_delay(DelayReason(first["reason"]), first["message"], since)
    concerns_all = first["subject"] == REDIS_SUBJECT or set(workers) <= {delay["worker_id"] for delay in delays}
    return _waiting(first["reason"], message if concerns_all else f"{first['name']}: {message}", since)


def _at_work(connection: Connection, kind: Kind, row: RowMapping) -> tuple[Kind, RowMapping]:
    """The job itself, or the batch that does its work now."""
    if kind is Kind.BATCH or not (ids := batches_of(kind, row)):
        return kind, row
    working = select(BatchRow.__table__).where(BatchRow.id.in_(ids), is_runnable(BatchRow))
    batch = connection.execute(working.limit(1)).mappings().first()
    return (kind, row) if batch is None else (Kind.BATCH, batch)


def _is_held(connection: Connection, kind: Kind, row: RowMapping) -> bool:
    """Whether a worker holds a lease on it, or on a chunk of it."""
    if kind is not Kind.BATCH:
        if row["state"] != "queued" and row["next_look_at"] is not None:
            return True  # between two polls
        table = LEASED[kind]
        statement = select(table.no).where(table.no == row["no"], table.lease_until > db_now())
        return connection.scalar(statement) is not None
    claimed = select(ChunkRow.number).where(
        ChunkRow.batch_no == row["no"],
        OPEN_CHUNK,
        ChunkRow.state == ChunkState.CLAIMED.value,
        ChunkRow.lease_until > db_now(),
    )
    return connection.scalar(claimed.limit(1)) is not None


def _live_workers(connection: Connection, queue: str) -> list[str]:
    serving = WorkerRow.queues.contains(f",{queue},", autoescape=True)
    return list(connection.scalars(select(WorkerRow.id).where(serving, WorkerRow.seen_at > db_now() - _LIVE_S)))


def _why_unable(connection: Connection, kind: Kind, row: RowMapping, workers: list[str]) -> WaitingFor | None:
    """The reason, if every worker that serves the queue has reported that it cannot do the work."""
    subjects = [row["id"], "mistral"] if kind is not Kind.DATASET else [row["id"]]
    if kind is Kind.BATCH:
        subjects.append(model_subject(row["model_no"]))
    unable = connection.execute(
        select(UnableWorkerRow.worker_id, UnableWorkerRow.reason).where(
            UnableWorkerRow.worker_id.in_(workers),
            UnableWorkerRow.subject.in_(subjects),
            UnableWorkerRow.until > db_now(),
        )
    ).all()
    if len({reported.worker_id for reported in unable}) < len(workers):
        return None
    return _waiting("worker_unable", f"no worker can do it now: {unable[0].reason}")


def _other_work(connection: Connection, kind: Kind, row: RowMapping) -> WaitingFor | None:
    """The jobs that workers are doing while this one waits."""
    if row["state"] != "queued":
        return None
    if kind is Kind.BATCH:
        ahead = select(BatchRow.id).where(BatchRow.state == BatchState.RUNNING.value).order_by(BatchRow.no)
        busy_with = list(connection.scalars(ahead.limit(_SHOWN)))
    else:
        busy_with = [
            job_id
            for table in LEASED.values()
            for job_id in connection.scalars(
                select(table.id)
                .where(is_open(table), table.id != row["id"], table.lease_until > db_now())
                .limit(_SHOWN)
            )
        ]
    return _waiting("other_work", f"workers are busy with {', '.join(busy_with[:_SHOWN])}") if busy_with else None
