"""What the worker reads and writes about trainings. Every write is guarded by the lease."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, or_, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.states import TrainingState
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import EventRow, TrainingRow
from labelmill.core.jobs import events as history
from labelmill.core.jobs import leases
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.store.jobs import write_held
from labelmill_worker.store.transitions import cancel_inner_batches, move_job


def read_training(engine: Engine, training_id: str) -> tuple[TrainingRow, float] | None:
    """The training as it stands now, and the database's time in seconds since 1970."""
    with reading(engine) as connection:
        found = (
            connection.execute(
                select(TrainingRow.__table__, db_now().label("now")).where(TrainingRow.id == training_id)
            )
            .mappings()
            .first()
        )
    if found is None:
        return None
    values = dict(found)
    now = float(values.pop("now"))
    return TrainingRow(**values), now


def record_poll(
    engine: Engine,
    training_id: str,
    token: str,
    events: Sequence[tuple[datetime, str]],
    *,
    changed: bool,
    **values: Any,
) -> None:
    """Record what a poll of Mistral showed: facts, and events that are not yet there. Ends a run of faults.

    `changed`, or any new event, is a sign of life. Raises LeaseLost.
    """
    with writing(engine) as connection:
        fresh = _missing_events(connection, training_id, events)
        if changed or fresh:
            values |= {"changed_at": db_now(), "faults": 0}
        update_held(connection, training_id, token, attempts=0, **values)
        history.note_at(connection, training_id, fresh)


def update_held(connection: Connection, training_id: str, token: str, **values: Any) -> None:
    """Write facts under the lease. Raises LeaseLost."""
    if not write_held(connection, TrainingRow, training_id, token, **values):
        raise LeaseLost(f"the lease on {training_id} was lost")


def cancel_training(engine: Engine, row: TrainingRow, token: str, message: str) -> None:
    """End the training as cancelled, its batches with it. Raises LeaseLost when it was moved meanwhile."""
    with writing(engine) as connection:
        moved = move_job(
            connection,
            row.id,
            TrainingState.CANCELLED,
            old=TrainingState(row.state),
            token=token,
            message=message,
            changed_at=db_now(),
            attempts=0,
        )
        if not moved:
            raise LeaseLost(f"{row.id} was moved by a person or another worker")
        cancel_inner_batches(connection, row.id, f"cancelled with {row.id}")


def restart_wait(engine: Engine, training_id: str, token: str) -> None:
    """Count the time without a change from now on. Raises LeaseLost."""
    with writing(engine) as connection:
        update_held(connection, training_id, token, changed_at=db_now(), due_at=None)


def release_training(engine: Engine, row: TrainingRow, token: str, poll_again_in_s: float) -> None:
    """Release the lease and say when to poll again: at once if a person approved or cancelled since `row`."""
    requests: list[ColumnElement[bool]] = []
    if not row.cancel_requested:
        requests.append(TrainingRow.cancel_requested.is_(True))
    if not row.approved:
        requests.append(
            and_(TrainingRow.approved.is_(True), TrainingRow.state == TrainingState.AWAITING_APPROVAL.value)
        )
    later = db_now() + poll_again_in_s
    due_at = case((or_(*requests), db_now()), else_=later) if requests else later
    with writing(engine) as connection:
        write_held(
            connection,
            TrainingRow,
            row.id,
            token,
            **leases.RELEASED,
            next_look_at=due_at,
            due_at=due_at,
        )


def _missing_events(
    connection: Connection, training_id: str, events: Sequence[tuple[datetime, str]]
) -> list[tuple[datetime, str]]:
    if not events:
        return []
    known = select(EventRow.at, EventRow.message).where(
        EventRow.job_id == training_id, EventRow.message.in_({message for _, message in events})
    )
    there = {(row.at, row.message) for row in connection.execute(known)}
    return [event for event in events if event not in there]
