"""Whole batches in SQL."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.job_kinds import BATCH
from labelmill.contracts.states import BatchState
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow
from labelmill.core.jobs.tables import is_runnable
from labelmill_worker.store.transitions import move_job


@dataclass(frozen=True)
class OpenBatch:
    """A batch that may be worked on."""

    model_no: int
    priority: str


def read_open_batch(engine: Engine, batch_id: str) -> OpenBatch | None:
    """The batch, unless it has ended or does not run yet."""
    wanted = select(BatchRow.model_no, BatchRow.priority).where(BatchRow.id == batch_id, is_runnable(BatchRow))
    with reading(engine) as connection:
        row = connection.execute(wanted).first()
    return OpenBatch(*row) if row else None


def fail_batch(engine: Engine, batch_id: str, error: LabelmillError) -> bool:
    """End a batch with its reason, before or while it runs."""
    with writing(engine) as connection:
        return move_job(
            connection,
            batch_id,
            BatchState.FAILED,
            old=BATCH.runnable,
            message=error.stored,
            error=error.stored,
            error_code=error.code,
        )
