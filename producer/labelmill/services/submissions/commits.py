"""Committing the job of a submission. The answer of a commit may be lost although the commit took effect: a submission
that then looks refused is made, and paid for, a second time."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.contracts.ids import kind_of
from labelmill.core.database import reading, writing
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.services.submissions.accepted import Accepted


def accept_job(engine: Engine, job_id: str, write: Callable[[Connection], Accepted]) -> Accepted:
    """Call `write`, which writes the job `job_id` or returns an earlier one, in a transaction. Where the answer of the
    commit is lost, the database is asked whether the job exists.

    Raises DatabaseUnavailable, which names the job if it may have been accepted, and what `write` raises.
    """
    accepted: Accepted | None = None
    try:
        with writing(engine) as connection:
            accepted = write(connection)
    except DatabaseUnavailable as error:
        if accepted is None:
            raise  # nothing was committed
        if accepted.id == job_id and not _exists(engine, job_id):
            raise DatabaseUnavailable(
                f"{error.message}; {job_id} may have been accepted: labelmill status {job_id}"
            ) from error
    return accepted


def _exists(engine: Engine, job_id: str) -> bool:
    """Whether the job is seen. False does not mean that it was refused: the server may still be committing it."""
    kind = kind_of(job_id)
    if kind is None:
        return False
    table = TABLE_OF[kind]
    try:
        with reading(engine) as connection:
            return connection.scalar(select(table.id).where(table.id == job_id)) is not None
    except DatabaseUnavailable:
        return False
