"""Claims and moves of whole jobs (dataset, training, evaluation): every write names the state it expects."""

from __future__ import annotations

import secrets
from typing import Any, TypeVar

from sqlalchemy import insert, or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.database import db_now, has_passed, reading, writing
from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.ids import Kind, kind_of, model_of_work
from labelmill.contracts.states import ENDED, State, moves_to
from labelmill.contracts.tables import (
    BatchRow,
    DatasetRow,
    EvaluationRow,
    EventRow,
    ModelRow,
    TrainingRow,
    utc_now,
)

Job = TypeVar("Job", DatasetRow, TrainingRow, EvaluationRow)


_TABLE_OF: dict[Kind, type[DatasetRow | TrainingRow | EvaluationRow | BatchRow]] = {
    Kind.DATASET: DatasetRow,
    Kind.TRAINING: TrainingRow,
    Kind.EVALUATION: EvaluationRow,
    Kind.BATCH: BatchRow,
}


def job_exists(engine: Engine, job_id: str) -> bool:
    """Whether there is such a job, or such a model for what is owed to Mistral."""
    model_no = model_of_work(job_id)
    kind = kind_of(job_id)
    if model_no is not None and model_no < 2**63:
        statement = select(ModelRow.no).where(ModelRow.no == model_no)
    elif kind is not None:
        statement = select(_TABLE_OF[kind].no).where(_TABLE_OF[kind].id == job_id)
    else:
        return False
    with reading(engine) as connection:
        return connection.scalar(statement) is not None


def read_job(engine: Engine, table: type[Job], job_id: str) -> Job | None:
    """The job as it stands now, detached from any session."""
    with reading(engine) as connection:
        row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().first()
    return table(**row) if row else None


def claim_job(engine: Engine, table: type[Job], job_id: str, lease_s: float) -> str | None:
    """Take the lease on a job that nobody works on. Returns the token to write under, or None: somebody else has it."""
    token = secrets.token_hex(8)
    statement = (
        update(table)
        .where(table.id == job_id, or_(table.lease_until.is_(None), has_passed(table.lease_until)))
        .where(table.state.not_in([state.value for state in ENDED]))
        .values(lease_token=token, lease_until=db_now() + lease_s, attempts=table.attempts + 1)
    )
    with writing(engine) as connection:
        return token if connection.execute(statement).rowcount else None


def renew_job(engine: Engine, table: type[Job], job_id: str, token: str, lease_s: float) -> bool:
    """Prolong a lease. False: it was lost, and nothing more may be written under it."""
    statement = (
        update(table).where(table.id == job_id, table.lease_token == token).values(lease_until=db_now() + lease_s)
    )
    with writing(engine) as connection:
        return bool(connection.execute(statement).rowcount)


def release_job(engine: Engine, table: type[Job], job_id: str, token: str, *, look_again_in_s: float | None) -> None:
    """Give the lease back. `look_again_in_s`: when the sweeper may send the job again; None leaves it to the state."""
    statement = (
        update(table)
        .where(table.id == job_id, table.lease_token == token)
        .values(
            lease_token=None,
            lease_until=None,
            next_look_at=None if look_again_in_s is None else db_now() + look_again_in_s,
        )
    )
    with writing(engine) as connection:
        connection.execute(statement)


def save_job(engine: Engine, table: type[Job], job_id: str, token: str, **values: Any) -> bool:
    """Record facts about a job without moving it. False: the lease was lost, nothing was written."""
    with writing(engine) as connection:
        statement = update(table).where(table.id == job_id, table.lease_token == token).values(**values)
        return bool(connection.execute(statement).rowcount)


def move_job(
    connection: Connection,
    table: type[Job],
    job_id: str,
    old: State,
    new: State,
    *,
    token: str | None = None,
    message: str = "",
    **values: Any,
) -> bool:
    """Move a job from `old` to `new` and leave a line in `events`. False: it was not in `old` (or the lease was lost).

    With a `token` the write is guarded by the lease. A job that ends gives its lease back.
    """
    if not moves_to(old, new):
        raise ValueError(f"no move from {old} to {new}")
    if new in ENDED:
        values = {"finished_at": utc_now(), "lease_token": None, "lease_until": None, "next_look_at": None} | values
    statement = update(table).where(table.id == job_id, table.state == old.value).values(state=new.value, **values)
    if token is not None:
        statement = statement.where(table.lease_token == token)
    if not connection.execute(statement).rowcount:
        return False
    add_event(connection, job_id, message or new.value, state=new.value)
    return True


def fail_job(
    engine: Engine,
    table: type[Job],
    job_id: str,
    old: State,
    new: State,
    error: LabelmillError,
    token: str | None = None,
) -> bool:
    """End a job with its reason."""
    with writing(engine) as connection:
        return move_job(
            connection, table, job_id, old, new, token=token,
            message=error.message, error=error.message, error_code=error.code,
        )  # fmt: skip


def add_event(
    connection: Connection, job_id: str, message: str, *, state: str | None = None, chunk: int | None = None
) -> None:
    """Append a line to a job's history."""
    connection.execute(
        insert(EventRow).values(job_id=job_id, at=utc_now(), message=message[:2000], state=state, chunk=chunk)
    )
