"""Files that trainings uploaded to Mistral and that nobody needs any more, in SQL."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.job_kinds import KINDS, Kind
from labelmill.core.database import db_now, has_passed, reading, writing
from labelmill.core.database.tables import TrainingRow
from labelmill.core.jobs import leases
from labelmill.core.jobs.uploaded_files import has_uploaded_files

MAX_PAUSE_S = 3600.0  #: Between two tries to delete them. A time further ahead was written before a clock was set back.
_AT_ONCE = 50


def trainings_with_files(engine: Engine, late_s: float = 0.0) -> list[str]:
    """Ended trainings with files, whose turn to be deleted has been for `late_s`."""
    late = or_(
        TrainingRow.next_look_at.is_(None),
        has_passed(TrainingRow.next_look_at, ago_s=late_s, max_ahead_s=MAX_PAUSE_S),
    )
    with reading(engine) as connection:
        return list(connection.scalars(select(TrainingRow.id).where(_has_files(), late).limit(_AT_ONCE)))


def claim_files(engine: Engine, training_id: str, lease_s: float) -> str | None:
    """Take the lease on an ended training with files. None: it has none, or another worker deletes them."""
    with reading(engine) as connection:
        if connection.scalar(select(TrainingRow.id).where(TrainingRow.id == training_id, _has_files())) is None:
            return None
    with writing(engine) as connection:
        return leases.claim(connection, TrainingRow, TrainingRow.id == training_id, _has_files(), lease_s=lease_s)


def forget_files(engine: Engine, training_id: str, token: str) -> None:
    """The files are gone."""
    with writing(engine) as connection:
        _release(connection, training_id, token, remote_files=None)


def defer_files(engine: Engine, training_id: str, token: str, again_in_s: float) -> None:
    """Release the lease; recovery sends the training again, after `MAX_PAUSE_S` at the latest."""
    with writing(engine) as connection:
        _release(connection, training_id, token, next_look_at=db_now() + min(again_in_s, MAX_PAUSE_S))


def defer_trainings(engine: Engine, training_ids: list[str]) -> None:
    """Trainings that have a message now are not late for a while."""
    with writing(engine) as connection:
        of_trainings = TrainingRow.id.in_(training_ids)
        connection.execute(update(TrainingRow).where(of_trainings, _has_files()).values(next_look_at=db_now()))


def _release(connection: Connection, training_id: str, token: str, **values: object) -> None:
    leases.write(connection, TrainingRow, token, TrainingRow.id == training_id, **leases.RELEASED, **values)


def _has_files() -> ColumnElement[bool]:
    ended = sorted(state.value for state in KINDS[Kind.TRAINING].ended)
    return and_(
        TrainingRow.state.in_(ended),
        has_uploaded_files(),
        leases.is_free(TrainingRow),
    )
