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
from labelmill_worker.store.chunks import LeaseLostError
from labelmill_worker.store.jobs import claim_job, fail_job, move_job, read_job, release_job
from labelmill_worker.store.leases import LeaseKeeper, LeaseLost

_QUEUED, _RUNNING = EvaluationState.QUEUED, EvaluationState.RUNNING


def run(services: Services, message: JobMessage) -> None:
    """Do the next step and say when to look again."""
    lease_s = services.settings.lease_s
    token = claim_job(services.engine, EvaluationRow, message.job_id, lease_s)
    job = read_job(services.engine, EvaluationRow, message.job_id) if token else None
    if token is None or job is None:
        return
    try:
        with LeaseKeeper(services.engine, EvaluationRow, job.id, token, lease_s) as lease:
            wait_s = _step(services, job, token, lease)
    except (LeaseLostError, LeaseLost):
        return  # another worker has it
    except Permanent as error:
        state = EvaluationState(job.state)
        evaluation.give_up(services, job)
        fail_job(services.engine, EvaluationRow, job.id, state, EvaluationState.FAILED, error, token)
        return
    if wait_s is None:
        return
    release_job(services.engine, EvaluationRow, job.id, token, look_again_in_s=wait_s)
    with contextlib.suppress(BrokerUnavailable):  # the sweeper knows from next_look_at
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
