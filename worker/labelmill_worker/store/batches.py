"""Whole batches in SQL."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.engine import Engine

from labelmill.contracts.database import writing
from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.states import BatchState
from labelmill.contracts.tables import BatchRow, utc_now
from labelmill_worker.store.jobs import add_event


def fail_batch(engine: Engine, batch_id: str, error: LabelmillError) -> bool:
    """End a batch with its reason, before or while it runs."""
    open_states = (BatchState.QUEUED.value, BatchState.RUNNING.value)
    with writing(engine) as connection:
        failed = connection.execute(
            update(BatchRow)
            .where(BatchRow.id == batch_id, BatchRow.state.in_(open_states))
            .values(state=BatchState.FAILED.value, finished_at=utc_now(), error=error.message, error_code=error.code)
        ).rowcount
        if failed:
            add_event(connection, batch_id, error.message, state=BatchState.FAILED.value)
    return bool(failed)
