"""Claims and moves of whole jobs (dataset, training, evaluation).

Whatever a worker writes about a job goes through `write_held` or follows `require_held` in one transaction: the job is
still open, and the worker holds its lease. Only recovery writes without a lease, about jobs whose lease is free.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.ids import kind_of, model_of_work, remote_batch_of
from labelmill.contracts.states import State
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import ModelRow, RemoteBatchRow
from labelmill.core.jobs import events, leases
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.jobs.tables import TABLE_OF, J, JobTable, is_open
from labelmill_worker.store.transitions import cancel_inner_batches, move_job

# built once: building such a statement takes as long as running it
_JOB = {kind: select(table.no).where(table.id == bindparam("id")) for kind, table in TABLE_OF.items()}
_MODEL = select(ModelRow.no).where(ModelRow.no == bindparam("id"))
_REMOTE_BATCH = select(RemoteBatchRow.no).where(RemoteBatchRow.no == bindparam("id"))


def job_exists(engine: Engine, job_id: str) -> bool:
    """Whether there is such a job, such a model for what is to be done at Mistral, or such a remote batch."""
    model_no, remote_no = model_of_work(job_id), remote_batch_of(job_id)
    kind = kind_of(job_id)
    statement: Select[Any]
    known_as: int | str
    if model_no is not None and model_no < 2**63:
        statement, known_as = _MODEL, model_no
    elif remote_no is not None and remote_no < 2**63:
        statement, known_as = _REMOTE_BATCH, remote_no
    elif kind is not None:
        statement, known_as = _JOB[kind], job_id
    else:
        return False
    with reading(engine) as connection:
        return connection.scalar(statement, {"id": known_as}) is not None


def read_job(engine: Engine, table: type[J], job_id: str) -> J | None:
    """The job as it stands now, detached from any session."""
    with reading(engine) as connection:
        row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().first()
    return table(**row) if row else None


def is_free(table: JobTable) -> ColumnElement[bool]:
    """The job has not ended and its lease is free."""
    return and_(is_open(table), leases.is_free(table))


def write_held(
    connection: Connection, table: JobTable, job_id: str, token: str, *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Write to a job that this worker holds. False: it has ended, or the lease was lost; nothing was written.

    `conditions`: what must hold of the job besides.
    """
    return leases.write(connection, table, token, table.id == job_id, is_open(table), *conditions, **values)


def require_held(
    connection: Connection, table: JobTable, job_id: str, token: str, *conditions: ColumnElement[bool]
) -> None:
    """Lock the job against claims and ends until the connection's transaction ends. Raises LeaseLost when it is
    lost."""
    of_job = select(table.id).where(table.id == job_id, is_open(table), *conditions)
    held = of_job.where(leases.is_held(table, token)).with_for_update()
    if connection.execute(held).first() is None:
        raise LeaseLost(f"the lease on {job_id} was lost")


def claim_job(engine: Engine, table: type[J], job_id: str, lease_s: float) -> tuple[J, str] | None:
    """Take the lease on a job that is free. Returns the job as it was claimed and the token to write under;
    None: another worker has it, or it has ended."""
    with writing(engine) as connection:
        of_job = (table.id == job_id, is_open(table))
        token = leases.claim(connection, table, *of_job, lease_s=lease_s, attempts=table.attempts + 1)
        if token is None:
            return None
        # in the same transaction: a person may end the job right after
        row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().one()
    return table(**row), token


def renew_job(
    engine: Engine, table: JobTable, job_id: str, token: str, lease_s: float, *conditions: ColumnElement[bool]
) -> bool:
    """Prolong a lease. False: it was lost, and nothing more may be written under it."""
    with writing(engine) as connection:
        of_job = (table.id == job_id, is_open(table), *conditions)
        return leases.renew(connection, table, token, *of_job, lease_s=lease_s)


def release_job(engine: Engine, table: JobTable, job_id: str, token: str, *, poll_again_in_s: float | None) -> bool:
    """Release the lease. `poll_again_in_s`: when recovery may send the job again; None leaves it to the state.
    False: the lease was lost."""
    next_look_at = None if poll_again_in_s is None else db_now() + poll_again_in_s
    with writing(engine) as connection:
        return write_held(connection, table, job_id, token, next_look_at=next_look_at, **leases.RELEASED)


def save_job(engine: Engine, table: JobTable, job_id: str, token: str, **values: Any) -> bool:
    """Record facts about a job without moving it. False: the lease was lost, nothing was written."""
    with writing(engine) as connection:
        return write_held(connection, table, job_id, token, **values)


def note_held(engine: Engine, table: JobTable, job_id: str, token: str, message: str) -> None:
    """Append a line to the history of a job that this worker holds. Raises LeaseLost."""
    with writing(engine) as connection:
        require_held(connection, table, job_id, token)
        events.note(connection, job_id, message)


def fail_job(engine: Engine, job_id: str, old: State, new: State, error: LabelmillError, token: str) -> bool:
    """End a job with its reason, and its batches with it: nothing more is paid for. What is paused stays so, for a
    retry."""
    with writing(engine) as connection:
        failed = move_job(
            connection,
            job_id,
            new,
            old=old,
            token=token,
            message=error.stored,
            error=error.stored,
            error_code=error.code,
        )
        if failed:
            cancel_inner_batches(connection, job_id, f"{job_id} failed", keep_ended=True)
    return failed
