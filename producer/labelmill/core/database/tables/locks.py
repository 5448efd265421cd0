"""Leases of work that has no row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Double, String

from labelmill.core.database.tables.base import Base, LeaseColumns, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class LockRow(LeaseColumns, Base):
    """A named lease for work that one process at a time should do (the sweep)."""

    __tablename__ = "locks"
    name: Mapped[str] = column(String(40), primary_key=True)
    lease_token: Mapped[str | None] = column("token", String(32))
    lease_until: Mapped[float] = column("until", Double, default=0.0)  #: Kept when the lease is released.
