"""How a prepared dataset is recorded."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.database import writing
from labelmill.contracts.states import DatasetState
from labelmill.contracts.tables import DatasetRow, Json
from labelmill_worker.prepare.dataset import PreparedDataset
from labelmill_worker.store.jobs import move_job

_VERSIONS_LOCK = 7_140_522  # an advisory lock of PostgreSQL; any fixed number


def record_dataset(
    engine: Engine, job_id: str, name: str, token: str, prepared: PreparedDataset
) -> tuple[bool, str | None]:
    """Make a dataset ready: a new version of `name`, or a repetition of the latest one with the same fingerprint.

    Returns whether it was written (False: the lease was lost), and the id of the dataset it repeats, whose files it
    then shares.
    """
    with writing(engine) as connection:
        _one_at_a_time(connection)
        latest = connection.execute(
            select(DatasetRow.id, DatasetRow.version, DatasetRow.fingerprint, DatasetRow.files)
            .where(DatasetRow.name == name, DatasetRow.state == DatasetState.READY.value, DatasetRow.repeats.is_(None))
            .order_by(DatasetRow.version.desc())
            .limit(1)
        ).first()
        files: Json = {split: str(path) for split, path in prepared.files.items()}
        version, repeats = (latest.version or 0) + 1 if latest else 1, None
        if latest and latest.fingerprint == prepared.fingerprint and _all_there(latest.files):
            version, repeats, files = latest.version, latest.id, latest.files
        written = move_job(
            connection, DatasetRow, job_id, DatasetState.PREPARING, DatasetState.READY, token=token,
            message=f"the same as {repeats}" if repeats else f"{name}@{version}",
            version=version, repeats=repeats, splits=prepared.splits, labels=prepared.labels,
            dropped=prepared.dropped, label_schema=prepared.label_schema, files=files,
            fingerprint=prepared.fingerprint, report=prepared.report,
        )  # fmt: skip
    return written, repeats


def _all_there(files: Json) -> bool:
    """A version whose files somebody deleted is worth making again."""
    return all(Path(path).is_file() for path in files.values())


def _one_at_a_time(connection: Connection) -> None:
    # two preparations of one name that end together must not take the same version; SQLite writes one at a time anyway
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _VERSIONS_LOCK})
