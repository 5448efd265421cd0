"""What a caller notes with a job, as names and values: written when the job is made, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, insert, select
from sqlalchemy.engine import Connection

from labelmill.core.database.tables import JobMetadataRow
from labelmill.core.jobs.tables import AnyJobTable

_IDS_AT_ONCE = 500  #: Ids in one statement.


def write_metadata(connection: Connection, job_id: str, metadata: Mapping[str, str]) -> None:
    """Store a new job's metadata, in the transaction that makes the job."""
    if metadata:
        rows = [{"job_id": job_id, "name": name, "value": value} for name, value in metadata.items()]
        connection.execute(insert(JobMetadataRow), rows)


def read_metadata(connection: Connection, job_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The metadata of each job that has some, by name."""
    row = JobMetadataRow
    metadata: dict[str, dict[str, str]] = {}
    for start in range(0, len(job_ids), _IDS_AT_ONCE):
        some = row.job_id.in_(job_ids[start : start + _IDS_AT_ONCE])
        statement = select(row.job_id, row.name, row.value).where(some).order_by(row.job_id, row.name)
        for job_id, name, value in connection.execute(statement):
            metadata.setdefault(job_id, {})[name] = value
    return metadata


def has_metadata(table: AnyJobTable, metadata: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Conditions: the job has all of these values."""
    row = JobMetadataRow
    return [
        table.id.in_(select(row.job_id).where(row.name == name, row.value == value)) for name, value in metadata.items()
    ]
