"""`labelmill.evaluate`: one look at an evaluation: begin its batch, wait without holding a worker, then measure."""

from __future__ import annotations

from pathlib import Path

from labelmill.contracts.database import writing
from labelmill.contracts.errors import BrokerUnavailable, CredentialsRefused, Permanent
from labelmill.contracts.messages import EVALUATE, JobMessage
from labelmill.contracts.states import BatchState, EvaluationState
from labelmill.contracts.tables import EvaluationRow
from labelmill_worker.bootstrap import Services
from labelmill_worker.evaluate import run as evaluation
from labelmill_worker.store import evaluations
from labelmill_worker.store.chunks import LeaseLostError
from labelmill_worker.store.jobs import claim_job, fail_job, move_job, read_job, release_job
from labelmill_worker.store.leases import LeaseKeeper

_QUEUED, _RUNNING = EvaluationState.QUEUED, EvaluationState.RUNNING


def run(services: Services, message: JobMessage) -> None:
    """Do the next step and say when to look again."""
    lease_s = services.settings.lease_s
    token = claim_job(services.engine, EvaluationRow, message.job_id, lease_s)
    job = read_job(services.engine, EvaluationRow, message.job_id) if token else None
    if token is None or job is None:
        return
    try:
        with LeaseKeeper(services.engine, EvaluationRow, job.id, token, lease_s):
            wait_s = _step(services, job, token)
    except LeaseLostError:
        return  # another worker has it
    except Permanent as error:
        state = EvaluationState(job.state)
        fail_job(services.engine, EvaluationRow, job.id, state, EvaluationState.FAILED, error, token)
        return
    if wait_s is None:
        return
    release_job(services.engine, EvaluationRow, job.id, token, look_again_in_s=wait_s)
    try:
        services.sender.send(EVALUATE, [JobMessage(job_id=job.id)], countdown_s=wait_s)
    except BrokerUnavailable:
        pass  # the sweeper knows from next_look_at


def _step(services: Services, job: EvaluationRow, token: str) -> float | None:
    """The next step. Returns when to look again, in seconds; None: it has ended."""
    path = evaluations.split_path(services.engine, job.dataset_id, job.split)
    if path is None:
        raise Permanent(f"the dataset's split {job.split!r} is gone")
    if job.state == _QUEUED.value:
        evaluation.begin(services, job.id, token, Path(path))
        with writing(services.engine) as connection:
            move_job(connection, EvaluationRow, job.id, _QUEUED, _RUNNING, token=token)
        return 0.5
    batch = evaluations.find_batch(services.engine, job.batch_id or "")
    if not evaluation.has_ended(batch.state):
        return min(5.0, 0.5 * job.attempts)
    if batch.state != BatchState.COMPLETED.value:
        kind = CredentialsRefused if batch.error_code == CredentialsRefused.code else Permanent
        raise kind(f"its batch {batch.id} ended {batch.state}: {batch.error or 'no reason is known'}")
    schema = evaluations.model_schema(services.engine, job.model_no)
    metrics = evaluation.measure(services, batch.no, schema, Path(path))
    with writing(services.engine) as connection:
        move_job(connection, EvaluationRow, job.id, _RUNNING, EvaluationState.COMPLETED, token=token, metrics=metrics)
    return None
