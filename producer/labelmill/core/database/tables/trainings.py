"""Trainings: runs that make a model version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, Boolean, Double, ForeignKey, Index, String, false

from labelmill.contracts.job_kinds import Kind
from labelmill.core.database.tables.base import Json, LeasedJobRow, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class TrainingRow(LeasedJobRow):
    kind = Kind.TRAINING
    __tablename__ = "trainings"
    name: Mapped[str] = column(String(200))  #: The model's name.
    method: Mapped[str] = column(String(20))
    dataset_id: Mapped[str] = column(String(64))
    options: Mapped[Json] = column(JSON(none_as_null=True))  #: A `TrainSpec`.
    max_cost: Mapped[float | None] = column(Double)
    approved: Mapped[bool] = column(Boolean, default=False, server_default=false())
    cancel_requested: Mapped[bool] = column(Boolean, default=False, server_default=false())
    changed_at: Mapped[float | None] = column(Double)  #: When Mistral last reported a change, by the database's clock.
    due_at: Mapped[float | None] = column(Double)  #: Not polled before this time, however many messages arrive.
    remote_files: Mapped[Json | None] = column(JSON(none_as_null=True))  #: split → Mistral's file id
    remote_job: Mapped[str | None] = column(String(100))
    remote_status: Mapped[str | None] = column(String(40))
    remote_model: Mapped[str | None] = column(String(200))
    estimate: Mapped[Json | None] = column(JSON(none_as_null=True))
    cost: Mapped[Json | None] = column(JSON(none_as_null=True))
    checkpoints: Mapped[list[Json] | None] = column(JSON(none_as_null=True))
    model_no: Mapped[int | None] = column(ForeignKey("models.no"))
    batch_id: Mapped[str | None] = column(String(64))  #: The batch that embeds or classifies for it.
    details: Mapped[Json | None] = column(JSON(none_as_null=True))  #: What the method reports, by target.
    __table_args__ = (
        Index("ix_trainings_state", "state"),
        Index("ix_trainings_idempotency_key", "idempotency_key", unique=True),
    )
