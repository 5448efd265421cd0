"""What may still be spent: one row for whatever has a cap, and what is reserved of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Index, Integer, String

from labelmill.core.database.tables.base import Base, Number, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class BudgetRow(Base):
    """What was spent of a cap and is reserved of it, in billionths of the currency. The cap itself stands with the job
    or in the settings, and may change."""

    __tablename__ = "budgets"
    scope: Mapped[str] = column(String(80), primary_key=True)  #: A job's id, or `month:2026-11`.
    spent: Mapped[int] = column(Number, default=0, server_default="0")
    reserved: Mapped[int] = column(Number, default=0, server_default="0")


class ReservationRow(Base):
    """What one holder has reserved of a budget for requests that are not recorded yet."""

    __tablename__ = "reservations"
    holder: Mapped[str] = column(String(64), primary_key=True)  #: The lease token of a claim, or another key.
    scope: Mapped[str] = column(String(80), primary_key=True)
    amount: Mapped[int] = column(Number)
    batch_no: Mapped[int | None] = column(Number)  #: The chunk that is claimed under the holder's token.
    chunk: Mapped[int | None] = column(Integer)
    __table_args__ = (Index("ix_reservations_scope", "scope"),)
