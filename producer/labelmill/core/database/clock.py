"""The database's own clock: the only one that leases trust."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class db_now(FunctionElement[float]):  # noqa: N801 - reads like an SQL function where it is used
    """Seconds since 1970 by the database's own clock: the only clock that leases trust."""

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


#: A moment further ahead than these was written before the clock was set back. No look at a job is put off so far …
FAR_S = 900.0
FAR_LEASE_S = 300.0  #: … no lease lasts so long …
FAR_CHUNK_S = 120.0  #: … and no chunk is put off so far.


def has_passed(
    moment: ColumnElement[float | None] | InstrumentedAttribute[float | None],
    *,
    ago_s: float = 0.0,
    far_s: float = FAR_LEASE_S,
) -> ColumnElement[bool]:
    """Whether a moment by the database's clock lies behind, by `ago_s` at least. One that is further ahead than `far_s`
    was written before the clock was set back, and counts as passed."""
    return or_(moment < db_now() - ago_s, moment > db_now() + far_s)
