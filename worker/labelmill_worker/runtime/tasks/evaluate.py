"""`labelmill.evaluate`: one look at an evaluation: begin its batches, wait without holding a worker, then measure."""

from __future__ import annotations

import contextlib

import structlog

from labelmill.contracts.errors import BrokerUnavailable, Permanent, Retryable, WorkerUnable
from labelmill.contracts.messages import EVALUATE, QUEUE_OF, JobMessage
from labelmill.contracts.states import EvaluationState
from labelmill.core.database import writing
from labelmill.core.database.tables import EvaluationRow
from labelmill_worker.evaluate import evaluation
from labelmill_worker.process.long_work import NoFreeSlot, long_slot
from labelmill_worker.process.put_back import leave_job
from labelmill_worker.runtime.bootstrap import Services
from labelmill_worker.store.faults import record_job_fault
from labelmill_worker.store.jobs import LeaseLost, claim_job, fail_job, move_job, read_job, release_job
from labelmill_worker.store.leases import LeaseKeeper
from labelmill_worker.store.stalled import give_to_recovery

log = structlog.get_logger()

_QUEUED, _RUNNING = EvaluationState.QUEUED, EvaluationState.RUNNING


def run(services: Services, message: JobMessage) -> None:
    """Do the next step and say when to look again."""
    lease_s = services.settings.lease_s
    claimed = claim_job(services.engine, EvaluationRow, message.job_id, lease_s)
    if claimed is None:
        return
    job, token = claimed
    try:
        with LeaseKeeper(services.engine, EvaluationRow, job.id, token, lease_s) as lease:
            wait_s = _step(services, job, token, lease)
    except NoFreeSlot as error:
        log.info("left to recovery", reason=error.message)
        give_to_recovery(services.engine, EvaluationRow, job.id, token)
        return
    except LeaseLost:
        return  # another worker has it, or it was cancelled
    except Permanent as error:
        if isinstance(error, WorkerUnable) and services.ability.leaves_to_others(error, job.id, QUEUE_OF[EVALUATE]):
            leave_job(services.engine, services.sender, EvaluationRow, job.id, token, EVALUATE)
        else:
            _fail(services, job.id, token, error)
        return
    except Retryable:
        raise
    except Exception as fault:
        found = record_job_fault(services.engine, EvaluationRow, job.id, token, fault)
        if found.is_last:
            _fail(services, job.id, token, found)
        else:
            release_job(services.engine, EvaluationRow, job.id, token, look_again_in_s=found.pause_s)
        raise
    if wait_s is None:
        return
    if not release_job(services.engine, EvaluationRow, job.id, token, look_again_in_s=wait_s):
        return
    with contextlib.suppress(BrokerUnavailable):  # recovery knows from next_look_at
        services.sender.send(EVALUATE, [JobMessage(job_id=job.id)], countdown_s=wait_s)


def _fail(services: Services, job_id: str, token: str, error: Permanent) -> None:
    """End the evaluation, as it stands by now."""
    job = read_job(services.engine, EvaluationRow, job_id)
    if job is None or job.lease_token != token:
        return
    state = EvaluationState(job.state)
    fail_job(services.engine, EvaluationRow, job_id, state, EvaluationState.FAILED, error, token)


def _step(services: Services, job: EvaluationRow, token: str, lease: LeaseKeeper[EvaluationRow]) -> float | None:
    """The next step. Returns when to look again, in seconds; None: it has ended."""
    if job.state == _QUEUED.value:
        with long_slot(services.engine, services.sender):
            evaluation.begin(services, job, token)
        with writing(services.engine) as connection:
            move_job(connection, EvaluationRow, job.id, _QUEUED, _RUNNING, token=token)
        return 0.5
    if not evaluation.have_ended(services, job):
        return min(5.0, 0.5 * job.attempts)
    with long_slot(services.engine, services.sender):
        evaluation.conclude(services, job, token, lease.check)
    return None
