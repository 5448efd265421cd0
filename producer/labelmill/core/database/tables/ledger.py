"""What was paid for: append-only, and kept when jobs are purged."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Double, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from labelmill.core.database.tables.base import Base, Number, UtcDateTime, utc_now


class LedgerRow(Base):
    """What the requests recorded by one transaction took: of one job, model, mode and price."""

    __tablename__ = "ledger"
    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    day: Mapped[str] = mapped_column(String(10))  #: Of `at`, in UTC: 2026-11-27.
    job_id: Mapped[str] = mapped_column(String(64))  #: The job that was asked for.
    batch_id: Mapped[str | None] = mapped_column(String(64))  #: The batch that sent the requests, for this job.
    model: Mapped[str] = mapped_column(String(200))  #: As it was called in the requests.
    mode: Mapped[str] = mapped_column(String(12))
    requests: Mapped[int] = mapped_column(Integer)
    input_tokens: Mapped[int] = mapped_column(Number)
    output_tokens: Mapped[int] = mapped_column(Number)
    cached_tokens: Mapped[int] = mapped_column(Number)  #: Of the input, those that Mistral had kept.
    amount: Mapped[float | None] = mapped_column(Double)  #: None: the price is not known.
    currency: Mapped[str] = mapped_column(String(3))
    estimated: Mapped[bool]  #: The tokens were counted here.
    input_price: Mapped[float | None] = mapped_column(Double)  #: For a million tokens, before the mode's factor.
    output_price: Mapped[float | None] = mapped_column(Double)
    prices_as_of: Mapped[str | None] = mapped_column(String(20))
    __table_args__ = (Index("ix_ledger_job_id", "job_id"), Index("ix_ledger_day", "day"))
