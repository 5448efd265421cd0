"""What callers note with their jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Index, String

from labelmill.contracts.bounds import MAX_METADATA_NAME_CHARS, MAX_METADATA_VALUE_CHARS
from labelmill.core.database.tables.base import Base, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class JobMetadataRow(Base):
    """One name and value of a job of any kind. In a table of its own, by which jobs are found on both databases."""

    __tablename__ = "job_metadata"
    job_id: Mapped[str] = column(String(64), primary_key=True)
    name: Mapped[str] = column(String(MAX_METADATA_NAME_CHARS), primary_key=True)
    value: Mapped[str] = column(String(MAX_METADATA_VALUE_CHARS))
    __table_args__ = (Index("ix_job_metadata_name_value_job_id", "name", "value", "job_id"),)
