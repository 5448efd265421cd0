"""One poll of a remote batch: claim it, take its next steps, record, say when to look again. Holds no worker in
between."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import NamedTuple

import structlog

from labelmill.contracts.errors import BrokerUnavailable, DatabaseUnavailable, Permanent, Retryable, WorkerUnable
from labelmill.contracts.ids import remote_batch_id
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.contracts.states import RemoteStep
from labelmill.core.jobs.delays import model_subject
from labelmill.core.jobs.dispatch import dispatch_batch, send_remote_batch
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.jobs.remote_batches import HOLDS_ROWS
from labelmill_worker.inference.batch_mode.moving import latest_move_s
from labelmill_worker.inference.batch_mode.schedule import backoff_s
from labelmill_worker.inference.batch_mode.steps import NextStep, take_step
from labelmill_worker.inference.batch_mode.stopping import patience_left_s
from labelmill_worker.inference.batch_mode.work import BatchModeContext, RemoteWork
from labelmill_worker.process.ability import MISTRAL, WORKER_ID
from labelmill_worker.process.delays import reason_of
from labelmill_worker.process.draining import ShuttingDown
from labelmill_worker.process.long_work import NoFreeSlot
from labelmill_worker.process.requeue import requeue
from labelmill_worker.store.chunks import ChunkBusy, complete_batch
from labelmill_worker.store.delays import end_delays_of_job, note_delay
from labelmill_worker.store.faults import UnforeseenFault
from labelmill_worker.store.lease_keeper import LeaseRenewal
from labelmill_worker.store.remote_batches import (
    advance,
    claim_remote_batch,
    count_fault,
    let_all_go,
    read_remote_batch,
    release_remote_batch,
    renew_remote_batch,
)
from labelmill_worker.store.remote_stops import end_stopping, stop_batch_of

log = structlog.get_logger()

_SLOT_PAUSE_S = 1.0
_MIN_STOP_PAUSE_S = 1.0
_ASKS_MISTRAL = (RemoteStep.CREATING, RemoteStep.WAITING)
_MAY_BE_PAID = (RemoteStep.CREATING, RemoteStep.WAITING, RemoteStep.READING)
_MAX_ATTEMPTS = 60  #: In a row in vain, of a step that the batch does not need any more: about an hour.
_NEXT_POLL_S = 10.0  #: How long a poll itself may take: a delay counts until the next one has ended.


def poll_remote_batch(context: BatchModeContext, number: int) -> None:
    """Take the steps that can be taken now. Does nothing when another worker has it, or nothing is left to do."""
    lease_s = context.settings.lease_s
    claim = claim_remote_batch(context.engine, number, lease_s)
    if claim is None:
        return
    with structlog.contextvars.bound_contextvars(job_id=claim.batch.id, remote_batch=number):
        renew = partial(renew_remote_batch, context.engine, number, claim.token, lease_s)
        try:
            with LeaseRenewal(f"remote batch {number}", renew, lease_s) as lease:
                wait_s = _advance(RemoteWork(context, claim, lease.check))
        except LeaseLost:
            log.info("dropped: another worker has it, or it is gone")
            return
        if wait_s is not None:
            with contextlib.suppress(BrokerUnavailable):  # recovery knows from next_look_at
                send_remote_batch(
                    context.sender, number, claim.batch.priority, countdown_s=wait_s if wait_s >= 0.05 else None
                )


def settle_batch(context: BatchModeContext, batch_id: str, batch_no: int) -> None:
    """Go on with a batch of which a remote batch has let its rows go: it is complete, is cancelled, or needs another
    one."""
    complete_batch(context.engine, batch_no, batch_id)
    end_stopping(context.engine, batch_id)
    with contextlib.suppress(BrokerUnavailable):  # recovery sends it
        dispatch_batch(context.engine, context.sender, batch_id)


def _advance(work: RemoteWork) -> float | None:
    """Take steps until one has to wait. Returns when to look again; None: never, or another worker does."""
    context = work.context
    while True:
        before = work.claim
        taken = _attempt(work)
        if taken.is_released:
            return taken.wait_s
        claim = None
        if taken.wait_s is not None:
            claim = read_remote_batch(context.engine, before.row.no, before.token)
        if before.step in HOLDS_ROWS and (claim is None or claim.step is not before.step):
            settle_batch(context, before.batch.id, before.batch.no)
        if claim is None:
            release_remote_batch(context.engine, before, 0.0)  # unless it is gone
            return None
        work = work.with_claim(claim)
        if taken.wait_s:
            return _release(work, taken.wait_s)


class _Taken(NamedTuple):
    """A step that was taken, or not. `wait_s`: until the next one; None: nothing is left to do here."""

    wait_s: float | None
    is_released: bool = False  #: The lease is given up already.


def _attempt(work: RemoteWork) -> _Taken:
    """Take the next step; what keeps it from being taken is recorded."""
    batch, step = work.claim.batch, work.claim.step
    try:
        wait_s = take_step(work)
    except (DatabaseUnavailable, LeaseLost):
        raise  # nothing can be recorded; the lease runs out and recovery sends it again
    except (NoFreeSlot, ChunkBusy):
        return _Taken(_release(work, _SLOT_PAUSE_S), is_released=True)
    except ShuttingDown:
        return _Taken(_release(work, 0.0), is_released=True)
    except Retryable as error:
        return _Taken(_after_fault(work, error), is_released=True)
    except WorkerUnable as error:
        return _after_inability(work, error)
    except Permanent as error:
        if _is_unneeded(work):  # no reason to stop the batch, or it has ended
            return _Taken(_after_fault(work, Retryable(error.message)), is_released=True)
        _stop_batch(work, error)
        return _Taken(0.0)
    except Exception as fault:
        _after_unforeseen(work, fault)
        raise
    if step in _ASKS_MISTRAL:
        for subject in (MISTRAL, model_subject(batch.model.no)):
            work.context.ability.succeeded(subject)
    if work.claim.row.attempts > 1:  # the first try after one that met a fault
        end_delays_of_job(work.engine, batch.id)
    return _Taken(wait_s)


def _release(work: RemoteWork, wait_s: float, *, progressed: bool = True) -> float | None:
    return wait_s if release_remote_batch(work.engine, work.claim, wait_s, progressed=progressed) else None


def _after_fault(work: RemoteWork, error: Retryable) -> NextStep:
    claim, context = work.claim, work.context
    if claim.row.attempts > _MAX_ATTEMPTS and _is_unneeded(work):
        _give_up(work, error.message)
        return _release(work, 0.0)
    wait_s = backoff_s(claim.row.attempts, work.poll_s, context.rng, min_s=error.retry_after_s)
    if claim.step in _ASKS_MISTRAL and not claim.batch.is_wanted:  # its end is not waited for any longer than that
        wait_s = min(wait_s, max(_MIN_STOP_PAUSE_S, patience_left_s(work)))
    if claim.step in HOLDS_ROWS:  # the deadline does not wait, whatever Mistral asks for
        wait_s = min(wait_s, max(_MIN_STOP_PAUSE_S, latest_move_s(work)))
    if (reason := reason_of(error)) is not None:
        note_delay(
            work.engine,
            WORKER_ID,
            claim.batch.id,
            reason,
            error.message,
            since_s=0.0,
            valid_s=wait_s + _NEXT_POLL_S,
        )
    log.warning("looks again later", step=claim.step.value, reason=error.message, in_s=round(wait_s, 1))
    return _release(work, wait_s, progressed=False)


def _after_inability(work: RemoteWork, error: WorkerUnable) -> _Taken:
    """Release what this worker cannot do; where no other worker can, the batch ends, and this worker winds it up."""
    claim, context = work.claim, work.context
    if context.ability.leaves_to_others(error, model_subject(claim.batch.model.no), QUEUE_OF[CLASSIFY]):
        if _release(work, 0.0) is not None:
            message = ChunkMessage(job_id=remote_batch_id(claim.row.no), chunk=0)
            requeue(context.sender, CLASSIFY, message, priority=claim.batch.priority)
        return _Taken(None, is_released=True)
    if _is_unneeded(work):
        return _Taken(_after_fault(work, Retryable(error.message)), is_released=True)
    _stop_batch(work, error)
    return _Taken(0.0)


def _stop_batch(work: RemoteWork, error: Permanent) -> None:
    stop_batch_of(work.engine, work.claim, error)
    log.error("batch stopped", reason=error.message)


def _is_unneeded(work: RemoteWork) -> bool:
    """Whether the batch can do without the step."""
    return work.claim.step is RemoteStep.CLEANING or not work.claim.batch.is_wanted


def _give_up(work: RemoteWork, why: str) -> None:
    """Leave a step undone that is not needed: its rows are let go, and what they may have cost counts as spent."""
    claim = work.claim
    message = f"given up in the step {claim.step.value}: {why}"
    if claim.step is RemoteStep.CLEANING:
        advance(work.engine, claim, RemoteStep.DONE, message)
        return
    if claim.step in _MAY_BE_PAID:
        work.give_up_answers(message)
    else:
        let_all_go(work.engine, claim, RemoteStep.CLEANING, message)
    settle_batch(work.context, claim.batch.id, claim.batch.no)


def _after_unforeseen(work: RemoteWork, fault: Exception) -> None:
    unforeseen = UnforeseenFault(fault, count_fault(work.engine, work.claim))
    if unforeseen.is_last and _is_unneeded(work):
        _give_up(work, unforeseen.message)
    elif unforeseen.is_last:
        _stop_batch(work, unforeseen)
    release_remote_batch(work.engine, work.claim, unforeseen.pause_s, progressed=False)
