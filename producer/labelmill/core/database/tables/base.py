"""What all tables share: how they are declared, column types, and the columns of jobs and of leased rows.

A table is a class whose attributes are its columns, so that queries like `select(BatchRow.state)` are type-checked; an
instance holds one row of it. They are tables of SQLAlchemy Core: nothing here needs the ORM, whose import and set-up
would be a fifth of what a short command takes.
"""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import SchemaItem

from labelmill.contracts.job_kinds import Kind

if TYPE_CHECKING:
    # a column on the class, its value on an instance
    from sqlalchemy.orm import Mapped

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


def column(*arguments: Any, **options: Any) -> Any:
    """A column of a table; arguments as for `sqlalchemy.Column`. May be NULL where its annotation says `| None`."""
    return Column(*arguments, **options)


class _Declared(type):
    """Makes a table of each class that has a `__tablename__`."""

    __tablename__: str
    __table__: Table

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        if "__tablename__" not in namespace:
            return
        columns = cls._copied_columns()
        items: tuple[SchemaItem, ...] = namespace.get("__table_args__", ())
        cls.__table__ = Table(namespace["__tablename__"], Base.metadata, *columns, *items)
        for each in columns:
            setattr(cls, each.key, each)

    def _copied_columns(cls) -> list[Column[Any]]:
        """A copy of each column of the class and of those that it inherits, called as its attribute unless named."""
        declared: dict[str, Column[Any]] = {}
        for parent in reversed(cls.__mro__):
            for attribute, annotation in inspect.get_annotations(parent).items():
                template = vars(parent).get(attribute)
                if isinstance(template, Column):
                    each = template._copy()
                    each.name = each.name or attribute
                    each.key = attribute
                    each.nullable = annotation.endswith("| None]") and not each.primary_key
                    declared[attribute] = each
        return list(declared.values())

    def __clause_element__(cls) -> Table:
        """What the class stands for in a statement: `insert(BatchRow)`, `select_from(BatchRow)`."""
        return cls.__table__


class Base(metaclass=_Declared):
    """An instance is one row, with None for each column that is not given.

    Names of constraints are fixed, so that migrations can find them.
    """

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    __tablename__: ClassVar[str]
    __table__: ClassVar[Table]

    def __init__(self, **values: Any) -> None:
        columns = self.__table__.columns.keys()
        if unknown := values.keys() - set(columns):
            raise TypeError(f"the table {self.__tablename__} has no column {', '.join(sorted(unknown))}")
        vars(self).update(dict.fromkeys(columns) | values)


class JobRow(Base):
    """What every job has. A table for each kind of job."""

    kind: ClassVar[Kind]

    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = column(String(64), unique=True)
    state: Mapped[str] = column(String(24))
    created_at: Mapped[datetime] = column(UtcDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = column(UtcDateTime)
    error: Mapped[str | None] = column(Text)
    error_code: Mapped[str | None] = column(String(40))
    idempotency_key: Mapped[str | None] = column(String(200))  #: Unique in each table.
    request_digest: Mapped[str | None] = column(String(80))  #: Of the request that the key stands for.


class LeaseColumns:
    """The lease's token and its end, in seconds since 1970 by the database's clock: see `core/jobs/leases`."""

    lease_token: Mapped[str | None] = column(String(32))
    lease_until: Mapped[float | None] = column(Double)


class Leased(LeaseColumns):
    """A row that one worker at a time works on: its lease, and when it is polled next, in the same unit of time."""

    next_look_at: Mapped[float | None] = column(Double)
    attempts: Mapped[int] = column(Integer, default=0, server_default="0")
    faults: Mapped[int] = column(Integer, default=0, server_default="0")  #: Unexpected faults since the last progress.


class LeasedJobRow(JobRow, Leased):
    """A job that one worker at a time works on."""
