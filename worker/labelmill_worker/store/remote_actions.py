"""Pending remote actions of models, in SQL. Every write is guarded by the lease."""

from __future__ import annotations

from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.ids import model_work_id
from labelmill.contracts.states import RemoteAction
from labelmill.core.database import MAX_POLL_DELAY_S, db_now, has_passed, reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.jobs import events, leases

_AT_ONCE = 200


def claim_action(engine: Engine, model_no: int, lease_s: float) -> ModelRow | None:
    """Take the lease on a model with a pending action. None: there is none, or another worker has it."""
    pending = (ModelRow.no == model_no, ModelRow.remote_wish.is_not(None))
    with writing(engine) as connection:
        if leases.claim(connection, ModelRow, *pending, lease_s=lease_s, attempts=ModelRow.attempts + 1) is None:
            return None
        columns = connection.execute(select(ModelRow.__table__).where(ModelRow.no == model_no)).mappings().one()
    return ModelRow(**columns)


def settle_action(engine: Engine, row: ModelRow, message: str, *, state: str | None, error: str | None = None) -> bool:
    """Record how an action ended: `state` is the model's at Mistral now. False: a person has requested another one
    meanwhile, which is still pending."""
    with writing(engine) as connection:
        settled: dict[str, Any] = {
            "remote_wish": None,
            "next_look_at": None,
            "attempts": 0,
            "faults": 0,
            "remote_error": error,
        }
        done = _write(connection, row, state=state, only_if_unchanged=True, values=settled)
        if not done:
            _write(connection, row, state=state, only_if_unchanged=False, values={"next_look_at": db_now()})
        events.note(connection, model_work_id(row.no), message)
    return done


def defer_action(engine: Engine, row: ModelRow, error: str, again_in_s: float, *, faults: int = 0) -> None:
    """Release the lease; recovery sends the action again. `faults`: unforeseen ones in a row."""
    values: dict[str, Any] = {"remote_error": error, "next_look_at": db_now() + again_in_s, "faults": faults}
    with writing(engine) as connection:
        _write(connection, row, state=row.remote_state, only_if_unchanged=False, values=values)


def _write(
    connection: Connection, row: ModelRow, *, state: str | None, only_if_unchanged: bool, values: dict[str, Any]
) -> bool:
    of_row = [ModelRow.no == row.no]
    if only_if_unchanged:
        of_row.append(ModelRow.remote_wish == row.remote_wish)
    return leases.write(
        connection, ModelRow, row.lease_token, *of_row, **leases.RELEASED, **{"remote_state": state} | values
    )


def overdue_actions(engine: Engine, late_s: float) -> list[int]:
    """Models with a pending action that no worker has claimed, and whose attempt is `late_s` late."""
    late = or_(
        ModelRow.next_look_at.is_(None), has_passed(ModelRow.next_look_at, ago_s=late_s, max_ahead_s=MAX_POLL_DELAY_S)
    )
    pending = ModelRow.remote_wish.in_([action.value for action in RemoteAction])
    with reading(engine) as connection:
        return list(
            connection.scalars(select(ModelRow.no).where(pending, late, leases.is_free(ModelRow)).limit(_AT_ONCE))
        )


def defer_actions(engine: Engine, model_nos: list[int]) -> None:
    """Actions that have a message now are not late for a while."""
    with writing(engine) as connection:
        connection.execute(update(ModelRow).where(ModelRow.no.in_(model_nos)).values(next_look_at=db_now()))
