"""What the worker writes about models: the version that a training made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import Connection

from labelmill.contracts.tables import DatasetRow, ModelRow, ModelTargetRow, TrainingRow, utc_now

_NAME_LOCK = 7_140_522  # with the name's hash: an advisory lock of PostgreSQL


def register_version(
    connection: Connection, training: TrainingRow, dataset: DatasetRow, remote_model: str
) -> tuple[int, int, bool]:
    """Add the next version of the training's model. Returns its key, its version, and whether it was promoted, which
    a name's first version is by itself."""
    if connection.dialect.name == "postgresql":
        # Two trainings of one name may end together; SQLite has one writer at a time anyway.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:lock, hashtext(:name))"),
            {"lock": _NAME_LOCK, "name": training.name},
        )
    newest = connection.scalar(select(func.max(ModelRow.version)).where(ModelRow.name == training.name))
    version = (newest or 0) + 1
    schema: list[dict[str, Any]] = dataset.label_schema or []
    statement = insert(ModelRow).values(
        name=training.name, version=version, state="ready", promoted=version == 1, method=training.method,
        remote_model=remote_model, label_schema=schema, training_id=training.id, dataset_id=dataset.id,
        dataset_fingerprint=dataset.fingerprint, created_at=utc_now(),
    )  # fmt: skip
    key = connection.execute(statement.returning(ModelRow.no)).scalar_one()
    names = [{"model_no": key, "target": number, "name": entry["name"]} for number, entry in enumerate(schema)]
    if names:
        connection.execute(insert(ModelTargetRow), names)
    return key, version, version == 1
