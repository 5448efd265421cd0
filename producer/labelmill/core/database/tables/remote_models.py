"""Mistral's own models, as workers saw them listed last, and what its answers told of their limits."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import JSON, BigInteger, Double, String

from labelmill.core.database.tables.base import Base, UtcDateTime, column, utc_now

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class RemoteModelRow(Base):
    """A name that Mistral lists. All are replaced whenever a worker reads the list."""

    __tablename__ = "remote_models"
    id: Mapped[str] = column(String(200), primary_key=True)
    aliases: Mapped[list[str]] = column(JSON)  #: Other names of the same model.
    deprecated_at: Mapped[str | None] = column(String(40))  #: When it stops to answer, as Mistral writes it.
    replacement: Mapped[str | None] = column(String(200))
    seen_at: Mapped[datetime] = column(UtcDateTime, default=utc_now)


class ReportedLimitsRow(Base):
    """The limits of a model, as an answer told them last; null: it did not."""

    __tablename__ = "reported_limits"
    model: Mapped[str] = column(String(200), primary_key=True)
    requests_per_minute: Mapped[int | None] = column(BigInteger)
    tokens_per_minute: Mapped[int | None] = column(BigInteger)
    tokens_left_of_month: Mapped[int | None] = column(BigInteger)
    seen_at: Mapped[float] = column(Double)  #: Seconds since 1970, by Redis' clock.
