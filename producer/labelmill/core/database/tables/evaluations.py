"""Evaluations, and what a report draws of any job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, Double, ForeignKey, Index, LargeBinary, String

from labelmill.contracts.job_kinds import Kind
from labelmill.core.database.tables.base import Base, Json, LeasedJobRow, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class EvaluationRow(LeasedJobRow):
    kind = Kind.EVALUATION
    __tablename__ = "evaluations"
    model_no: Mapped[int] = column(ForeignKey("models.no"))
    model_ref: Mapped[str] = column(String(220))
    dataset_id: Mapped[str] = column(String(64))
    dataset_ref: Mapped[str] = column(String(220))
    split: Mapped[str] = column(String(20))
    batch_id: Mapped[str | None] = column(String(64))  #: The batch that classifies the split.
    max_cost: Mapped[float | None] = column(Double)
    metrics: Mapped[Json | None] = column(JSON(none_as_null=True))
    options: Mapped[Json | None] = column(JSON(none_as_null=True))  #: An `EvaluateSpec`.
    calibration_batch_id: Mapped[str | None] = column(String(64))  #: The batch that classifies validation.
    summary: Mapped[Json | None] = column(JSON(none_as_null=True))  #: Counts, time and cost of all targets.
    __table_args__ = (
        Index("ix_evaluations_state", "state"),
        Index("ix_evaluations_idempotency_key", "idempotency_key", unique=True),
        Index("ix_evaluations_model_no", "model_no"),
    )


class AnalysisRow(Base):
    """What a report draws of a job, compressed (see `analysis_codec`); too much for the job's own row."""

    __tablename__ = "analyses"
    job_id: Mapped[str] = column(String(64), primary_key=True)
    data: Mapped[bytes] = column(LargeBinary)
