"""`labelmill.evaluate`: one look at an evaluation: begin its batches, wait without holding a worker, then measure."""

from __future__ import annotations

import contextlib

from labelmill.contracts.database import writing
from labelmill.contracts.errors import BrokerUnavailable, Permanent
from labelmill.contracts.messages import EVALUATE, JobMessage
from labelmill.contracts.states import EvaluationState
from labelmill.contracts.tables import EvaluationRow
from labelmill_worker.bootstrap import Services
from labelmill_worker.evaluate import work as evaluation
from labelmill_worker.store.jobs import LeaseLost, claim_job, fail_job, move_job, release_job
from labelmill_worker.store.leases import LeaseKeeper

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
    except LeaseLost:
        return  # another worker has it, or it was cancelled
    except Permanent as error:
        state = EvaluationState(job.state)
        fail_job(services.engine, EvaluationRow, job.id, state, EvaluationState.FAILED, error, token)
        return
    if wait_s is None:
        return
    if not release_job(services.engine, EvaluationRow, job.id, token, look_again_in_s=wait_s):
        return
    with contextlib.suppress(BrokerUnavailable):  # recovery knows from next_look_at
        services.sender.send(EVALUATE, [JobMessage(job_id=job.id)], countdown_s=wait_s)


def _step(services: Services, job: EvaluationRow, token: str, lease: LeaseKeeper[EvaluationRow]) -> float | None:
    """The next step. Returns when to look again, in seconds; None: it has ended."""
    if job.state == _QUEUED.value:
        evaluation.begin(services, job, token)
        with writing(services.engine) as connection:
            move_job(connection, EvaluationRow, job.id, _QUEUED, _RUNNING, token=token)
        return 0.5
    if not evaluation.have_ended(services, job):
        return min(5.0, 0.5 * job.attempts)
    evaluation.conclude(services, job, token, lease.check)
    return None
