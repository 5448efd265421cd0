"""Which files purged jobs have in the storage, and files of jobs that no longer exist.

Only what has the name of a job is touched: the storage may hold files of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.engine import Engine

from labelmill.contracts.ids import Kind, kind_of
from labelmill.core.database import reading
from labelmill.core.database.tables import DatasetRow, ModelRow, TrainingRow
from labelmill.core.storage.base import Entry, Storage
from labelmill.core.storage.references import DATASETS, MODELS, SOURCES, dataset_folder, model_file, source_folder
from labelmill.services.models.resolving import DELETED

_IDS_AT_ONCE = 500


def files_of(storage: Storage, job_id: str) -> Iterator[str]:
    """References to the files and folders that a job may have."""
    kind = kind_of(job_id)
    if kind is Kind.DATASET:
        yield dataset_folder(job_id)
        yield source_folder(job_id)
        yield f"{source_folder(job_id)}.part"
    elif kind is Kind.TRAINING:
        yield model_file(job_id)
        yield from storage.leftovers(f"{MODELS}/{job_id}")


def left_behind(engine: Engine, storage: Storage, before: datetime) -> Iterator[str]:
    """References to files of jobs that are in no table: of an interrupted submission, or of a purge that was killed.
    Files younger than `before` are left out: their job may be about to be written."""
    for folder, kind in ((DATASETS, Kind.DATASET), (SOURCES, Kind.DATASET), (MODELS, Kind.TRAINING)):
        old = [entry for entry in storage.entries(folder) if entry.modified_at < before.timestamp()]
        by_reference = {entry.reference: job_id for entry in old if kind_of(job_id := _job_of(entry)) is kind}
        known_ids = _known(engine, kind, by_reference.values())
        yield from (reference for reference, job_id in by_reference.items() if job_id not in known_ids)


def _job_of(entry: Entry) -> str:
    return entry.reference.rpartition("/")[2].lstrip(".").partition(".")[0]


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
