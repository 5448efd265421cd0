"""The creation of a job at Mistral, which is paid for. Its answer may be lost and the job be listed only later, or a
worker that lost its lease may create one all the same: one job is kept, and every other one is stopped."""

from __future__ import annotations

import math

import structlog

from labelmill.contracts.errors import LabelmillError, MalformedAnswer, RemoteUnavailable
from labelmill.contracts.states import RemoteStep
from labelmill.core.database import db_now
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.inference.batch_mode.remote_job import (
    MARKER,
    answered_of,
    cancel_job,
    jobs_with_marker,
    stop_doubles,
)
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.ports.batch_jobs import RemoteBatch
from labelmill_worker.ports.inference import Endpoint
from labelmill_worker.store.remote_batches import advance, held_chunks, needs_remote_job, save_remote

log = structlog.get_logger()

TIMEOUT_HOURS = 24  #: After which Mistral ends a job as it stands.
#: Mistral may list a new job so much later. Until then, that none is found does not mean that none was made.
LISTED_AFTER_S = 5.0


def create(work: RemoteWork) -> float:
    """creating → waiting."""
    row = work.claim.row
    job = job_made_before(work) or _new_job(work)
    made = f"batch job {job.id} made at Mistral: {row.requests:,} requests for {row.rows:,} texts"
    try:
        advance(
            work.engine,
            work.claim,
            RemoteStep.WAITING,
            made,
            remote_id=job.id,
            remote_status=job.status,
            made_at=db_now(),
            stop_asked_at=None,
        )
    except LeaseLost:
        if not needs_remote_job(work.engine, row.no, job.id):
            log.warning("a batch job that is not needed any more is stopped", remote_job=job.id)
            cancel_job(work, job.id)
        raise
    log.info("batch job made", remote_job=job.id, requests=row.requests, texts=row.rows)
    return work.poll_s


def job_made_before(work: RemoteWork) -> RemoteBatch | None:
    """The job that an earlier attempt made, whose answer was lost. Raises RemoteUnavailable while one may be listed
    yet."""
    row = work.claim.row
    if not row.attempts:  # this worker has just come to this step: nobody has tried
        return None
    found = jobs_with_marker(work)
    if found:
        kept = answered_of(found) or found[0]
        stop_doubles(work, (job for job in found if job.id != kept.id))
        return kept
    may_be_listed_s = (row.creation_sent_at or 0.0) + LISTED_AFTER_S - work.claim.now
    if row.creations and may_be_listed_s > 0:
        raise RemoteUnavailable("Mistral may have made a batch job that it does not list yet", may_be_listed_s)
    return None


def timeout_hours(work: RemoteWork) -> int:
    """How long Mistral may work on the job."""
    deadline_s = work.claim.batch.deadline_s
    return TIMEOUT_HOURS if deadline_s is None else max(1, min(168, math.ceil(deadline_s / 3600)))


def _new_job(work: RemoteWork) -> RemoteBatch:
    row = work.claim.row
    calls = list(work.call_maker().held_calls(held_chunks(work.engine, work.claim))) if row.inline else ()
    save_remote(work.engine, work.claim, creations=row.creations + 1, creation_sent_at=db_now())
    work.confirm_lease()
    try:
        return work.jobs.create(
            Endpoint(row.endpoint or ""),
            row.model or "",
            file_id=row.input_file,
            calls=calls,
            metadata={MARKER: row.marker, "batch": work.claim.batch.id},
            timeout_hours=timeout_hours(work),
        )
    except (RemoteUnavailable, MalformedAnswer):
        raise  # it may have been made
    except LabelmillError:
        save_remote(work.engine, work.claim, creations=row.creations)
        raise
