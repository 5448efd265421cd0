"""Prepared datasets."""

from __future__ import annotations

from sqlalchemy import JSON, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from labelmill.contracts.job_kinds import Kind
from labelmill.core.database.tables.base import Json, LeasedJobRow, partial_index


class DatasetRow(LeasedJobRow):
    kind = Kind.DATASET
    __tablename__ = "datasets"
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int | None] = mapped_column(Integer)  #: Given when ready.
    repeats: Mapped[str | None] = mapped_column(String(64))  #: The dataset with the same fingerprint, if there was one.
    spec: Mapped[Json] = mapped_column(JSON(none_as_null=True))  #: A `PrepareSpec`.
    splits: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    labels: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    dropped: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    label_schema: Mapped[list[Json] | None] = mapped_column(JSON(none_as_null=True))
    files: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: split → path
    fingerprint: Mapped[str | None] = mapped_column(String(80))
    report: Mapped[Json | None] = mapped_column(
        JSON(none_as_null=True)
    )  #: Bad rows by line and what else a reader wants to know.
    __table_args__ = (
        partial_index("ix_datasets_name_version", "name", "version", where="repeats IS NULL", unique=True),
        Index("ix_datasets_state", "state"),
        Index("ix_datasets_idempotency_key", "idempotency_key", unique=True),
    )
