"""Transitions of jobs by a worker: those of `core/jobs/transitions`, with a line in the log for each job that ended.

A worker's code moves jobs through these functions alone.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.engine import Connection

from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.states import BatchState, State
from labelmill.core.database import after_commit
from labelmill.core.jobs import inner_batches, transitions
from labelmill_worker.store.ended_job_log import log_ended_batch, log_ended_job


def move_job(
    connection: Connection,
    job_id: str,
    new: State,
    *conditions: ColumnElement[bool],
    old: State | Collection[State] | None = None,
    token: str | None = None,
    message: str = "",
    chunk: int | None = None,
    **values: Any,
) -> bool:
    """As `transitions.move_job`. A job that ended is logged once the transaction, begun by `writing`, is committed."""
    moved = transitions.move_job(
        connection, job_id, new, *conditions, old=old, token=token, message=message, chunk=chunk, **values
    )
    if moved and new in ENDED:
        if isinstance(new, BatchState):
            after_commit(connection, partial(log_ended_batch, connection.engine, job_id))
        else:
            after_commit(connection, partial(log_ended_job, job_id, new.value, values))
    return moved


def cancel_inner_batches(connection: Connection, job_id: str, why: str, *, keep_ended: bool = False) -> None:
    """As `inner_batches.cancel_inner_batches`, with a line in the log for each batch."""
    for batch_id in inner_batches.cancel_inner_batches(connection, job_id, why, keep_ended=keep_ended):
        after_commit(connection, partial(log_ended_batch, connection.engine, batch_id))
