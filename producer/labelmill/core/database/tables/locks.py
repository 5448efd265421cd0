"""Leases of work that has no row of its own."""

from __future__ import annotations

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from labelmill.core.database.tables.base import Base, LeaseColumns


class LockRow(LeaseColumns, Base):
    """A named lease for work that one process at a time should do (the sweep)."""

    __tablename__ = "locks"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    lease_token: Mapped[str | None] = mapped_column("token", String(32))
    lease_until: Mapped[float] = mapped_column("until", Double, default=0.0)  #: Kept when the lease is released.
