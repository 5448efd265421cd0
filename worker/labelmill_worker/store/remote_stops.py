"""What becomes of a batch whose rows remote batches hold: stopped, paused at a cap, moved to realtime."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BudgetReached, LabelmillError
from labelmill.contracts.job_kinds import BATCH
from labelmill.contracts.states import BatchState, Mode, Stopping
from labelmill.core.database import db_now, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import BatchRow, RemoteBatchRow
from labelmill.core.jobs import events
from labelmill.core.jobs.remote_batches import holds_rows
from labelmill_worker.store.budgets import Cap, is_reached
from labelmill_worker.store.remote_batches import RemoteClaim
from labelmill_worker.store.transitions import move_job


def stop_batch_of(engine: Engine, claim: RemoteClaim, error: LabelmillError) -> None:
    """Fail the batch at once, or pause it where a budget is reached: nothing more of it is sent."""
    is_paused = isinstance(error, BudgetReached)
    with writing(engine) as connection:
        move_job(
            connection,
            claim.batch.id,
            BatchState.PAUSED if is_paused else BatchState.FAILED,
            old=BatchState.RUNNING if is_paused else BATCH.runnable,
            message=error.stored,
            error=error.stored,
            error_code=error.code,
        )


def pause_at_cap(engine: Engine, claim: RemoteClaim, cap: Cap, next_amount: int) -> bool:
    """Pause the batch whose next request may cost more than is left of a cap. False: a reservation is outstanding that
    could come back."""
    error = cap.reached(claim.batch.owner_id or claim.batch.id)
    with writing(engine) as connection:
        return is_reached(connection, cap, next_amount) and move_job(
            connection,
            claim.batch.id,
            BatchState.PAUSED,
            old=BatchState.RUNNING,
            message=error.stored,
            error=error.stored,
            error_code=error.code,
        )


def end_stopping(engine: Engine, batch_id: str) -> Stopping | None:
    """Once no remote batch of a batch that is being stopped holds rows: running → cancelled, or it goes on in realtime.
    Returns what was done."""
    with writing(engine) as connection:
        batch = connection.execute(select(BatchRow.no, BatchRow.stopping).where(BatchRow.id == batch_id)).one()
        if batch.stopping is None:
            return None
        if dialect_of(connection).locks_rows:
            connection.execute(select(BatchRow.no).where(BatchRow.no == batch.no).with_for_update())
        if connection.scalar(select(RemoteBatchRow.no).where(RemoteBatchRow.batch_no == batch.no, holds_rows())):
            return None
        if batch.stopping == Stopping.CANCEL.value:
            move_job(connection, batch_id, BatchState.CANCELLED, message="cancelled by a person", stopping=None)
            return Stopping.CANCEL
        connection.execute(
            update(BatchRow)
            .where(BatchRow.no == batch.no, BatchRow.stopping == Stopping.REALTIME.value)
            .values(stopping=None, runs_in=Mode.REALTIME.value)
        )
        events.note(connection, batch_id, "goes on in realtime")
        return Stopping.REALTIME


def ask_to_stop(engine: Engine, batch_id: str, stopping: Stopping, reason: str | None = None) -> bool:
    """Have the remote batches of a running batch stopped. False: they are being stopped already, or it has ended."""
    values: dict[str, Any] = {"stopping": stopping.value}
    if reason is not None:
        values["mode_reason"] = reason
    with writing(engine) as connection:
        running = BatchRow.state.in_(sorted(state.value for state in BATCH.runnable))
        asked = update(BatchRow).where(BatchRow.id == batch_id, running, BatchRow.stopping.is_(None)).values(values)
        if not connection.execute(asked).rowcount:
            return False
        batch_no = select(BatchRow.no).where(BatchRow.id == batch_id).scalar_subquery()
        due = update(RemoteBatchRow).where(RemoteBatchRow.batch_no == batch_no, holds_rows())
        connection.execute(due.values(next_look_at=db_now()))
        if reason is not None:
            events.note(connection, batch_id, reason)
    return True


def explain_mode(engine: Engine, batch_id: str, reason: str) -> None:
    """Say why a batch begins as it does, unless that was said before."""
    with writing(engine) as connection:
        unsaid = (BatchRow.id == batch_id) & BatchRow.mode_reason.is_(None)
        connection.execute(update(BatchRow).where(unsaid).values(mode_reason=reason))
