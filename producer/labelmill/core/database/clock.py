"""The database's clock, the only one that leases use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Double, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute


class db_now(FunctionElement[float]):  # noqa: N801 - reads like an SQL function where it is used
    """Seconds since 1970 by the database's clock."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now)
def _postgres_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    return "extract(epoch from clock_timestamp())::double precision"


# A time further ahead than these was written before the clock was set back.
MAX_POLL_DELAY_S = 900.0  #: No poll of a job is deferred for longer.
MAX_LEASE_S = 300.0  #: No lease lasts longer.
MAX_CHUNK_DELAY_S = 120.0  #: No chunk is deferred for longer.


def has_passed(
    timestamp: ColumnElement[float | None] | InstrumentedAttribute[float | None],
    *,
    ago_s: float = 0.0,
    max_ahead_s: float = MAX_LEASE_S,
) -> ColumnElement[bool]:
    """Whether a time by the database's clock passed at least `ago_s` ago. A time more than `max_ahead_s` ahead was
    written before the clock was set back, and counts as passed."""
    return or_(timestamp < db_now() - ago_s, timestamp > db_now() + max_ahead_s)
