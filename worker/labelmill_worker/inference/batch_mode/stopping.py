"""The steps of a remote batch whose batch has ended, or is being stopped."""

from __future__ import annotations

from functools import partial

from labelmill.contracts.errors import LabelmillError, WorkerUnable
from labelmill.contracts.states import RemoteStep, Stopping
from labelmill.core.database import db_now
from labelmill_worker.inference.batch_mode.creation import job_made_before
from labelmill_worker.inference.batch_mode.moving import patience_to_move_s
from labelmill_worker.inference.batch_mode.remote_job import cancel_job, end_job, look_at_job
from labelmill_worker.inference.batch_mode.schedule import next_poll_s
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.ports.batch_jobs import CANCELLATION_REQUESTED, RemoteBatch
from labelmill_worker.store.budgets import release
from labelmill_worker.store.remote_batches import advance, drop_remote_batch, let_all_go, require_remote, save_remote

#: A job that was asked to stop and has not ended: what it was answered until then is not waited for any longer.
STOP_PATIENCE_S = 900.0


def drop(work: RemoteWork) -> None:
    """packing → nothing: it holds no rows yet."""
    release(work.engine, work.claim.holder.key, partial(require_remote, claim=work.claim))
    drop_remote_batch(work.engine, work.claim)


def never_made(work: RemoteWork) -> float:
    """Its job is not made any more, unless an attempt before has made it."""
    message = "a batch job was not made: the batch was stopped"
    if work.claim.step is RemoteStep.CREATING:
        left_s = patience_left_s(work)
        try:
            job = job_made_before(work)
        except WorkerUnable:
            raise
        except LabelmillError as error:
            if left_s > 0:
                raise
            work.give_up_answers(f"Mistral does not say whether a batch job was made: {error.message}")
            return 0
        if job is not None:
            advance(work.engine, work.claim, RemoteStep.WAITING, remote_id=job.id, made_at=db_now())
            return 0
    let_all_go(work.engine, work.claim, RemoteStep.CLEANING, message)
    return 0


def stop(work: RemoteWork) -> float:
    """Have Mistral stop its job, and wait for the end: what it was answered so far is read."""
    row = work.claim.row
    is_asked = row.stop_asked_at is not None
    left_s = patience_left_s(work)
    if not is_asked:
        cancel_job(work, row.remote_id or "")
        return min(1.0, work.poll_s)
    job = _look(work, left_s)
    if job is not None and job.has_ended:
        return end_job(work, job)
    if job is None or left_s <= 0:
        work.give_up_answers(
            f"batch job {row.remote_id} did not end after it was stopped: its results are not waited for"
        )
        return 0
    if job.status != CANCELLATION_REQUESTED:
        cancel_job(work, row.remote_id or "")
    waited_s = work.claim.now - (row.stop_asked_at or work.claim.now)
    return min(next_poll_s(waited_s, min(1.0, work.poll_s)), left_s)


def _look(work: RemoteWork, left_s: float) -> RemoteBatch | None:
    """The job; None: it is gone, or Mistral does not tell and there is no time left to ask again."""
    try:
        return look_at_job(work)
    except WorkerUnable:
        raise
    except LabelmillError:
        if left_s > 0:
            raise
        return None


def patience_left_s(work: RemoteWork) -> float:
    """How long the end is waited for from now on. Counts from the first call, whether Mistral could be asked or not."""
    row = work.claim.row
    moves = work.claim.batch.stopping == Stopping.REALTIME.value
    elapsed_s = 0.0
    if row.stop_asked_at is None:
        save_remote(work.engine, work.claim, stop_asked_at=db_now())
    else:
        elapsed_s = work.claim.now - row.stop_asked_at
    if moves:
        return patience_to_move_s(work, elapsed_s)
    return STOP_PATIENCE_S - elapsed_s
