"""What a caller notes with a job, as names and values: written when the job is made, never changed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import JSON, ColumnElement, Label, func, insert, select
from sqlalchemy.engine import Connection

from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import JobMetadataRow
from labelmill.core.jobs.tables import AnyJobTable


def write_metadata(connection: Connection, job_id: str, metadata: Mapping[str, str]) -> None:
    """Store a new job's metadata, in the transaction that makes the job."""
    if metadata:
        rows = [{"job_id": job_id, "name": name, "value": value} for name, value in metadata.items()]
        connection.execute(insert(JobMetadataRow), rows)


def metadata_of(connection: Connection, table: AnyJobTable) -> Label[dict[str, str] | None]:
    """The column `metadata` of a query that reads jobs: in one statement with them, because a status is asked for
    often. Empty, or None, where a job has none."""
    as_object = dialect_of(connection).choose(sqlite=func.json_group_object, postgres=func.json_object_agg)
    row = JobMetadataRow
    collected = select(as_object(row.name, row.value, type_=JSON)).where(row.job_id == table.id)
    return collected.scalar_subquery().label("metadata")


def in_order(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """By name; databases collect them in any order."""
    return dict(sorted((metadata or {}).items()))


def has_metadata(table: AnyJobTable, metadata: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Conditions: the job has all of these values."""
    row = JobMetadataRow
    return [
        table.id.in_(select(row.job_id).where(row.name == name, row.value == value)) for name, value in metadata.items()
    ]
