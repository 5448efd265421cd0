"""How a prepared dataset is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.states import DatasetState
from labelmill.core.database import lock_name, writing
from labelmill.core.database.tables import DatasetRow, Json
from labelmill.core.storage.base import Storage
from labelmill.core.storage.references import dataset_folder
from labelmill_worker.store.transitions import move_job


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset on disk and everything that is recorded about it."""

    splits: dict[str, int]
    labels: dict[str, dict[str, dict[str, int]]]  #: target → split → label → rows
    dropped: dict[str, int]  #: reason → rows
    label_schema: list[dict[str, Any]]
    files: dict[str, Path]
    fingerprint: str
    report: dict[str, Any]


def record_dataset(
    engine: Engine,
    storage: Storage,
    job_id: str,
    name: str,
    token: str,
    prepared: PreparedDataset,
    references: Mapping[str, str],
) -> tuple[bool, str | None]:
    """Make a dataset ready: a new version of `name`, or a repetition of the latest one with the same fingerprint.
    `references`: split → its stored file.

    Returns whether it was written (False: the lease was lost), and the id of the dataset it repeats, whose files it
    then shares.
    """
    with writing(engine) as connection:
        lock_name(connection, "dataset", name)
        latest = connection.execute(
            select(DatasetRow.id, DatasetRow.version, DatasetRow.fingerprint, DatasetRow.files)
            .where(DatasetRow.name == name, DatasetRow.state == DatasetState.READY.value, DatasetRow.repeats.is_(None))
            .order_by(DatasetRow.version.desc())
            .limit(1)
        ).first()
        files: Json = dict(references)
        version, repeats = (latest.version or 0) + 1 if latest else 1, None
        if latest and latest.fingerprint == prepared.fingerprint and _all_there(storage, latest.id, latest.files):
            version, repeats, files = latest.version, latest.id, latest.files
        written = move_job(
            connection,
            job_id,
            DatasetState.READY,
            old=DatasetState.PREPARING,
            token=token,
            message=f"the same as {repeats}" if repeats else f"{name}@{version}",
            version=version,
            repeats=repeats,
            splits=prepared.splits,
            labels=prepared.labels,
            dropped=prepared.dropped,
            label_schema=prepared.label_schema,
            files=files,
            fingerprint=prepared.fingerprint,
            report=prepared.report,
        )
    return written, repeats


def _all_there(storage: Storage, dataset_id: str, files: Json) -> bool:
    """A version whose files were deleted is prepared again."""
    try:
        return all(storage.file(one, dataset_folder(dataset_id)).exists() for one in files.values())
    except InvalidInput:
        return False
