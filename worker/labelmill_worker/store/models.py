"""What the worker writes about models: the version that a training made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from labelmill.core.database import lock_name
from labelmill.core.database.tables import DatasetRow, ModelRow, ModelTargetRow, TrainingRow, utc_now

READY, TUNING = "ready", "tuning"  #: A version that is being tuned is in no list yet.


def register_version(
    connection: Connection,
    training: TrainingRow,
    dataset: DatasetRow,
    remote_model: str,
    *,
    recipe: dict[str, Any] | None = None,
    thresholds: dict[str, Any] | None = None,
    state: str = READY,
) -> tuple[int, int, bool]:
    """Add the next version of the training's model. Returns its key, its version, and whether it was promoted, which
    a version is by itself once it is ready where the name has no other that can be used."""
    lock_name(connection, "model", training.name)
    newest = connection.scalar(select(func.max(ModelRow.version)).where(ModelRow.name == training.name))
    version = (newest or 0) + 1
    promoted = state == READY and not _can_be_used(connection, training.name)
    schema: list[dict[str, Any]] = dataset.label_schema or []
    statement = insert(ModelRow).values(
        name=training.name,
        version=version,
        state=state,
        promoted=promoted,
        method=training.method,
        remote_model=remote_model,
        label_schema=schema,
        training_id=training.id,
        dataset_id=dataset.id,
        dataset_fingerprint=dataset.fingerprint,
        created_at=utc_now(),
        recipe=recipe,
        thresholds=thresholds or None,
    )
    key = connection.execute(statement.returning(ModelRow.no)).scalar_one()
    names = [{"model_no": key, "target": number, "name": entry["name"]} for number, entry in enumerate(schema)]
    if names:
        connection.execute(insert(ModelTargetRow), names)
    return key, version, promoted


def _can_be_used(connection: Connection, name: str) -> bool:
    """Whether a version of the name is ready. Where all were archived or deleted, the next one answers to the name."""
    statement = select(ModelRow.no).where(ModelRow.name == name, ModelRow.state == READY).limit(1)
    return connection.scalar(statement) is not None


def publish_version(connection: Connection, model_no: int, thresholds: dict[str, Any] | None) -> tuple[str, bool]:
    """Make a tuned version ready. Returns its name and version, and whether it was promoted."""
    row = connection.execute(select(ModelRow.name, ModelRow.version).where(ModelRow.no == model_no)).one()
    lock_name(connection, "model", row.name)
    promoted = not _can_be_used(connection, row.name)
    connection.execute(
        update(ModelRow)
        .where(ModelRow.no == model_no, ModelRow.state == TUNING)
        .values(state=READY, promoted=promoted, thresholds=thresholds or None)
    )
    return f"{row.name}@{row.version}", promoted
