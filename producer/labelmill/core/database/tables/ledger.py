"""What was paid for: append-only, and kept when jobs are purged."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Boolean, Double, Index, Integer, String

from labelmill.core.database.tables.base import Base, Number, UtcDateTime, column, utc_now

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class LedgerRow(Base):
    """What the requests recorded by one transaction took: of one job, model, mode and price."""

    __tablename__ = "ledger"
    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = column(UtcDateTime, default=utc_now)
    day: Mapped[str] = column(String(10))  #: Of `at`, in UTC: 2026-11-27.
    job_id: Mapped[str] = column(String(64))  #: The job that was asked for.
    batch_id: Mapped[str | None] = column(String(64))  #: The batch that sent the requests, for this job.
    model: Mapped[str] = column(String(200))  #: As it was called in the requests.
    mode: Mapped[str] = column(String(12))
    requests: Mapped[int] = column(Integer)
    input_tokens: Mapped[int] = column(Number)
    output_tokens: Mapped[int] = column(Number)
    cached_tokens: Mapped[int] = column(Number)  #: Of the input, those that Mistral had kept.
    amount: Mapped[float | None] = column(Double)  #: None: the price is not known.
    currency: Mapped[str] = column(String(3))
    estimated: Mapped[bool] = column(Boolean)  #: The tokens were counted here.
    input_price: Mapped[float | None] = column(Double)  #: For a million tokens, before the mode's factor.
    output_price: Mapped[float | None] = column(Double)
    prices_as_of: Mapped[str | None] = column(String(20))
    __table_args__ = (Index("ix_ledger_job_id", "job_id"), Index("ix_ledger_day", "day"))
