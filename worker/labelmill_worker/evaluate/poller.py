"""One poll of an evaluation: begin its batches, wait without holding a worker, then measure."""

from __future__ import annotations

import contextlib

import structlog

from labelmill.contracts.errors import BrokerUnavailable, Permanent, Retryable, WorkerUnable
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import EVALUATE, JobMessage
from labelmill.contracts.states import EvaluationState
from labelmill.core.database import writing
from labelmill.core.database.tables import EvaluationRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.evaluate import evaluation
from labelmill_worker.evaluate.evaluation import EvaluateContext
from labelmill_worker.process.long_work import NoFreeSlot, long_slot
from labelmill_worker.process.requeue import requeue_job
from labelmill_worker.store.faults import record_job_fault
from labelmill_worker.store.jobs import claim_job, fail_job, read_job, release_job
from labelmill_worker.store.lease_keeper import LeaseKeeper
from labelmill_worker.store.stalled import give_to_recovery
from labelmill_worker.store.transitions import move_job

log = structlog.get_logger()

_QUEUED, _RUNNING = EvaluationState.QUEUED, EvaluationState.RUNNING


def poll_evaluation(context: EvaluateContext, job_id: str) -> None:
    """Do the next step and say when to poll again. Does nothing when it is not due, or another worker has it."""
    lease_s = context.lease_s
    claimed = claim_job(context.engine, EvaluationRow, job_id, lease_s)
    if claimed is None:
        return
    job, token = claimed
    try:
        with LeaseKeeper(context.engine, EvaluationRow, job.id, token, lease_s) as lease:
            wait_s = _step(context, job, token, lease)
    except NoFreeSlot as error:
        log.info("left to recovery", reason=error.message)
        give_to_recovery(context.engine, EvaluationRow, job.id, token)
        return
    except LeaseLost:
        return  # another worker has it, or it was cancelled
    except Permanent as error:
        if isinstance(error, WorkerUnable) and context.ability.leaves_to_others(error, job.id, QUEUE_OF[EVALUATE]):
            requeue_job(context.engine, context.sender, EvaluationRow, job.id, token, EVALUATE)
        else:
            _fail(context, job.id, token, error)
        return
    except Retryable:
        raise
    except Exception as fault:
        unforeseen = record_job_fault(context.engine, EvaluationRow, job.id, token, fault)
        if unforeseen.is_last:
            _fail(context, job.id, token, unforeseen)
        else:
            release_job(context.engine, EvaluationRow, job.id, token, poll_again_in_s=unforeseen.pause_s)
        raise
    if wait_s is None:
        return
    if not release_job(context.engine, EvaluationRow, job.id, token, poll_again_in_s=wait_s):
        return
    with contextlib.suppress(BrokerUnavailable):  # recovery knows from next_look_at
        context.sender.send(EVALUATE, [JobMessage(job_id=job.id)], countdown_s=wait_s)


def _fail(context: EvaluateContext, job_id: str, token: str, error: Permanent) -> None:
    """End the evaluation, as it stands by now."""
    job = read_job(context.engine, EvaluationRow, job_id)
    if job is None or job.lease_token != token:
        return
    state = EvaluationState(job.state)
    fail_job(context.engine, job_id, state, EvaluationState.FAILED, error, token)


def _step(context: EvaluateContext, job: EvaluationRow, token: str, lease: LeaseKeeper[EvaluationRow]) -> float | None:
    """The next step. Returns when to poll again, in seconds; None: it has ended."""
    if job.state == _QUEUED.value or not evaluation.has_begun(job):
        with long_slot(context.engine, context.sender):
            evaluation.begin(context, job, token)
        with writing(context.engine) as connection:
            move_job(connection, job.id, _RUNNING, old=_QUEUED, token=token)
        return 0.5
    if not evaluation.have_ended(context, job):
        return min(5.0, 0.5 * job.attempts)
    with long_slot(context.engine, context.sender):
        evaluation.conclude(context, job, token, lease.check)
    return None
