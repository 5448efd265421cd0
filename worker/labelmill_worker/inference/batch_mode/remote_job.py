"""The job at Mistral that a remote batch made: whether there is one, how it stands, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import structlog

from labelmill.contracts.errors import LabelmillError, RemoteFailed, RemoteUnavailable, Retryable, WorkerUnable
from labelmill.contracts.states import RemoteStep
from labelmill.core.database import db_now
from labelmill.core.database.tables import RemoteBatchRow
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.ports.batch_jobs import CANCELLATION_REQUESTED, SUCCESS, RemoteBatch
from labelmill_worker.store.remote_batches import advance

log = structlog.get_logger()

MARKER = "labelmill"  #: The key of the marker in a job's metadata.
GONE = "GONE"  #: The status of a job that Mistral does not know any more.
#: A job counts as gone when so many looks in a row found none, and it was made so long ago: Mistral may know a new job
#: a little later, and one wrong answer must not have a job's rows paid for twice.
GONE_LOOKS, GONE_AFTER_S = 5, 30.0
_MAX_WORDS = 500


def answered_requests(row: RemoteBatchRow, job: RemoteBatch) -> int:
    """How many requests Mistral says are done, of those that the job has."""
    return min(row.requests, job.succeeded_requests + job.failed_requests)


def jobs_with_marker(work: RemoteWork) -> list[RemoteBatch]:
    """The jobs that were made for this remote batch, the oldest first: more than one where a creation was repeated."""
    row = work.claim.row
    return work.jobs.find({MARKER: row.marker}, row.begun_at - 3600)


def stop_doubles(work: RemoteWork, doubles: Iterable[RemoteBatch]) -> None:
    """Have jobs stopped in whose place another one is kept."""
    for double in doubles:
        if not double.has_ended and double.status != CANCELLATION_REQUESTED:
            log.warning("a second batch job with the same marker is stopped", remote_job=double.id)
            cancel_job(work, double.id)


def answered_of(jobs: Iterable[RemoteBatch]) -> RemoteBatch | None:
    """Of jobs that hold the same requests, one that answered them all: it is paid for, and no other one is needed."""
    return next((job for job in jobs if job.status == SUCCESS), None)


def look_at_job(work: RemoteWork) -> RemoteBatch | None:
    """The job as it is now, or another one of the same requests that has answered them before it; None: it is gone.
    Raises RemoteUnavailable where Mistral may know it again."""
    row = work.claim.row
    doubles: list[RemoteBatch] = []
    if row.creations > 1:  # another one may be listed by now
        with contextlib.suppress(Retryable):
            doubles = [job for job in jobs_with_marker(work) if job.id != row.remote_id]
    try:
        job = work.jobs.get(row.remote_id or "")
    except RemoteFailed as error:
        answered = answered_of(doubles)
        stop_doubles(work, doubles)
        return answered or _gone_job(work, error)
    answered = None if job.has_ended else answered_of(doubles)
    stop_doubles(work, doubles if answered is None else (job, *doubles))
    return answered or job


def _gone_job(work: RemoteWork, error: RemoteFailed) -> RemoteBatch | None:
    """A job that Mistral does not show, if it lists it."""
    row = work.claim.row
    age_s = work.claim.now - (row.made_at or work.claim.now)
    if row.attempts < GONE_LOOKS or age_s < GONE_AFTER_S:
        raise RemoteUnavailable(f"Mistral does not show batch job {row.remote_id}: {error.message}") from error
    with contextlib.suppress(RemoteFailed):
        for job in jobs_with_marker(work):
            if job.id == row.remote_id:
                return job
    cancel_job(work, row.remote_id or "")  # should it run all the same
    return None


def cancel_job(work: RemoteWork, remote_id: str) -> None:
    """Ask Mistral to stop a job. Where that fails, the next look tells, and it is asked again. Raises WorkerUnable."""
    try:
        work.jobs.cancel(remote_id)
    except WorkerUnable:
        raise
    except LabelmillError as error:
        log.warning("a batch job could not be stopped", remote_job=remote_id, reason=error.message)


def end_job(work: RemoteWork, job: RemoteBatch) -> float:
    """waiting → reading: the job has ended."""
    words = _words_of(job)
    message = f"batch job {job.id} ended {job.status}" + (f": {words}" if words else "")
    advance(
        work.engine,
        work.claim,
        RemoteStep.READING,
        message,
        remote_id=job.id,
        remote_status=job.status,
        answered=answered_requests(work.claim.row, job),
        output_file=job.output_file,
        error_file=job.error_file,
        ended_at=db_now(),
    )
    return 0


def end_gone_job(work: RemoteWork) -> float:
    """waiting → reading, where nothing is to be read: what the job may have cost counts as spent."""
    work.charge_reserved()
    message = f"batch job {work.claim.row.remote_id} is gone at Mistral"
    log.warning(message)
    advance(work.engine, work.claim, RemoteStep.READING, message, remote_status=GONE, answered=0, ended_at=db_now())
    return 0


def why_it_failed(work: RemoteWork) -> str:
    """What Mistral says of an ended job as a whole; empty where it says nothing, or cannot be asked."""
    with contextlib.suppress(LabelmillError):
        return _words_of(work.jobs.get(work.claim.row.remote_id or ""))
    return ""


def _words_of(job: RemoteBatch) -> str:
    return "; ".join(dict.fromkeys(filter(None, job.errors)))[:_MAX_WORDS]
