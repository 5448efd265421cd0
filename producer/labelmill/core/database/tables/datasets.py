"""Prepared datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, Index, Integer, String

from labelmill.contracts.job_kinds import Kind
from labelmill.core.database.tables.base import Json, LeasedJobRow, column, partial_index

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class DatasetRow(LeasedJobRow):
    kind = Kind.DATASET
    __tablename__ = "datasets"
    name: Mapped[str] = column(String(200))
    version: Mapped[int | None] = column(Integer)  #: Given when ready.
    repeats: Mapped[str | None] = column(String(64))  #: The dataset with the same fingerprint, if there was one.
    spec: Mapped[Json] = column(JSON(none_as_null=True))  #: A `PrepareSpec`.
    splits: Mapped[Json | None] = column(JSON(none_as_null=True))
    labels: Mapped[Json | None] = column(JSON(none_as_null=True))
    dropped: Mapped[Json | None] = column(JSON(none_as_null=True))
    label_schema: Mapped[list[Json] | None] = column(JSON(none_as_null=True))
    files: Mapped[Json | None] = column(JSON(none_as_null=True))  #: split → path
    fingerprint: Mapped[str | None] = column(String(80))
    report: Mapped[Json | None] = column(
        JSON(none_as_null=True)
    )  #: Bad rows by line and what else a reader wants to know.
    __table_args__ = (
        partial_index("ix_datasets_name_version", "name", "version", where="repeats IS NULL", unique=True),
        Index("ix_datasets_state", "state"),
        Index("ix_datasets_idempotency_key", "idempotency_key", unique=True),
    )
