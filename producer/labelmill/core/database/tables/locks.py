"""Leases of work that has no row of its own."""

from __future__ import annotations

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from labelmill.core.database.tables.base import Base


class LockRow(Base):
    """A named lease for work that one process at a time should do (the sweep)."""

    __tablename__ = "locks"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    token: Mapped[str | None] = mapped_column(String(32))
    until: Mapped[float] = mapped_column(Double, default=0.0)
