"""One purge. Every step can be repeated: the next purge finishes one that was killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.ids import Kind
from labelmill.core.database import reading
from labelmill.core.database.tables import utc_now
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.core.storage.base import Measured, Storage
from labelmill.services.context import ServiceContext
from labelmill.services.purging.files import files_of, left_behind
from labelmill.services.purging.rows import (
    PURGED_TABLES,
    Deleted,
    count_all,
    delete_batches,
    delete_jobs,
    delete_old_rows,
    number_all_events,
)
from labelmill.services.purging.selection import ended_before, is_needed, may_go

_AGE = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
#: Batches are deleted by other means, their rows being many. Later kinds first: they refer to earlier ones.
_WITHOUT_BATCHES = tuple(kind for kind in reversed(Kind) if kind is not Kind.BATCH)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class PurgeRequest:
    """`older_than`: the age of ended jobs that are deleted, as a number and a unit: `90d`."""

    older_than: str
    dry_run: bool = False


@dataclass(frozen=True)
class Purged:
    """What was deleted, or would be. `kept`: jobs that are old enough, but that remaining jobs or models need."""

    before: datetime
    dry_run: bool
    jobs: dict[str, int]
    kept: dict[str, int]
    rows: dict[str, int]
    files: int
    bytes: int


def cutoff_of(older_than: str) -> datetime:
    """The time that lies so far in the past: `90d`, `12h`, `30m`, `8w`. Raises InvalidInput."""
    match = _AGE.fullmatch(older_than.strip())
    if match is None:
        raise InvalidInput(
            f"{named('older_than')} {shown(older_than)} is not a number and a unit, such as 90d, 8w, 12h or 30m"
        )
    try:
        return utc_now() - timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError as error:
        raise InvalidInput(f"{named('older_than')} {shown(older_than)} lies before the first year") from error


def purge(context: ServiceContext, request: PurgeRequest) -> Purged:
    """Delete jobs that ended long ago, with their rows and files, and old events, dropped messages and rows of dead
    workers. Raises InvalidInput, DatabaseUnavailable."""
    engine, before, dry_run = context.engine, cutoff_of(request.older_than), request.dry_run
    storage = context.storage
    kept = _kept(engine, before)
    files = Measured()
    if dry_run:
        deleted = count_all(engine, before)
        for reference in {*_files_that_would_go(engine, storage, before), *left_behind(engine, storage, before)}:
            files += storage.measure(reference)
    else:
        deleted = Deleted()
        number_all_events(engine)
        delete_batches(engine, before, deleted)
        for kind in _WITHOUT_BATCHES:
            for job_id in delete_jobs(engine, kind, before, deleted):
                for reference in files_of(storage, job_id):
                    files += storage.delete(reference)
        delete_old_rows(engine, before, deleted)
        for reference in list(left_behind(engine, storage, before)):
            files += storage.delete(reference)
    jobs = {kind.value: deleted.jobs[kind.value] for kind in Kind}
    return Purged(
        before, dry_run, jobs, kept, {table: deleted.rows[table] for table in PURGED_TABLES}, files.files, files.bytes
    )


def _kept(engine: Engine, before: datetime) -> dict[str, int]:
    with reading(engine) as connection:
        return {
            kind.value: int(
                connection.scalar(
                    select(func.count()).select_from(table).where(ended_before(table, before), is_needed(kind, before))
                )
                or 0
            )
            for kind, table in TABLE_OF.items()
        }


def _files_that_would_go(engine: Engine, storage: Storage, before: datetime) -> Iterator[str]:
    with reading(engine) as connection:
        for kind in _WITHOUT_BATCHES:
            for job_id in connection.scalars(select(TABLE_OF[kind].id).where(may_go(kind, before))):
                yield from files_of(storage, job_id)
