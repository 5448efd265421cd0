"""What all tables share: column types, and the columns of jobs and of leased rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Double, Index, Integer, String, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from labelmill.contracts.job_kinds import Kind

Json = dict[str, Any]
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only when the type is INTEGER


class UtcDateTime(TypeDecorator[datetime]):
    """A date and time, always in UTC (SQLite stores no time zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of the rows that meet `where`, a condition in SQL.

    Migrations make the tables, so the condition is only noted here: given to SQLAlchemy as `sqlite_where` and
    `postgresql_where`, it would load both dialects, of which a process uses one.
    """
    return Index(name, *columns, unique=unique, info={"where": where})


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can find them."""


Base.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class JobRow(Base):
    """What every job has. A table for each kind of job."""

    __abstract__ = True
    kind: ClassVar[Kind]

    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(24))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(40))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))  #: Unique in each table.
    request_digest: Mapped[str | None] = mapped_column(String(80))  #: Of the request that the key stands for.


class LeaseColumns:
    """The lease's token and its end, in seconds since 1970 by the database's clock: see `core/jobs/leases`."""

    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[float | None] = mapped_column(Double)


class Leased(LeaseColumns):
    """A row that one worker at a time works on: its lease, and when it is polled next, in the same unit of time."""

    next_look_at: Mapped[float | None] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    faults: Mapped[int] = mapped_column(
        Integer, default=0, server_default="0"
    )  #: Unexpected faults since the last progress.


class LeasedJobRow(JobRow, Leased):
    """A job that one worker at a time works on."""

    __abstract__ = True
