"""Deletes the files of purged jobs in the data folder, and files of jobs that no longer exist.

Only what has the name of a job is touched: the folder may hold files of others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.engine import Engine

from labelmill.contracts.ids import Kind, kind_of
from labelmill.core.database import reading
from labelmill.core.database.tables import DatasetRow, ModelRow, TrainingRow
from labelmill.core.storage.data_folder import MODELS, DataFolder, dataset_folder, model_file, source_folder
from labelmill.services.models.resolving import DELETED

_IDS_AT_ONCE = 500


@dataclass
class DeletedFiles:
    """The number of files and their total size."""

    files: int = 0
    bytes: int = 0

    def add(self, path: Path) -> None:
        """Count a file, or those in a folder."""
        for file in [path] if path.is_file() or path.is_symlink() else path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                self.files += 1
                self.bytes += file.stat().st_size

    def delete(self, path: Path) -> None:
        """Delete a file or a folder, and count it. One that does not exist is not counted."""
        self.add(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def files_of(data: DataFolder, job_id: str) -> Iterator[Path]:
    """The paths that a job may have in the data folder."""
    kind = kind_of(job_id)
    if kind is Kind.DATASET:
        yield data.path(dataset_folder(job_id))
        yield data.path(source_folder(job_id))
        yield data.path(f"{source_folder(job_id)}.part")
    elif kind is Kind.TRAINING:
        yield data.path(model_file(job_id))
        yield from data.path(MODELS).glob(f"*{job_id}.*part")


def left_behind(engine: Engine, data: DataFolder, before: datetime) -> Iterator[Path]:
    """Files of jobs that are in no table: of an interrupted submission, or of a purge that was killed. Files younger
    than `before` are left out: their job may be about to be written."""
    for folder, kind in (("datasets", Kind.DATASET), ("sources", Kind.DATASET), (MODELS, Kind.TRAINING)):
        old = [path for path in _entries(data.path(folder)) if _is_older(path, before)]
        by_id = {path: job_id for path in old if kind_of(job_id := path.name.lstrip(".").partition(".")[0]) is kind}
        known_ids = _known(engine, kind, by_id.values())
        yield from (path for path, job_id in by_id.items() if job_id not in known_ids)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []  # the folder does not exist here


def _is_older(path: Path, before: datetime) -> bool:
    try:
        return path.lstat().st_mtime < before.timestamp()
    except OSError:
        return False


def _known(engine: Engine, kind: Kind, ids: Iterable[str]) -> set[str]:
    """The ids whose files are still needed."""
    job_ids, known_ids = sorted(set(ids)), set[str]()
    if kind is Kind.DATASET:
        columns: tuple[Callable[[list[str]], ColumnElement[bool]], ...] = (DatasetRow.id.in_, DatasetRow.repeats.in_)
        statement = select(DatasetRow.id, DatasetRow.repeats)
    else:
        columns = (TrainingRow.id.in_,)
        statement = select(TrainingRow.id, TrainingRow.batch_id)
    with reading(engine) as connection:
        for start in range(0, len(job_ids), _IDS_AT_ONCE):
            part = job_ids[start : start + _IDS_AT_ONCE]
            for row in connection.execute(statement.where(or_(*(column(part) for column in columns)))):
                known_ids |= {str(job_id) for job_id in row}
            if kind is Kind.TRAINING:
                made = select(ModelRow.training_id).where(ModelRow.training_id.in_(part), ModelRow.state != DELETED)
                known_ids |= {str(training_id) for training_id in connection.scalars(made)}
    return known_ids
