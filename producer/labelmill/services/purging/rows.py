"""Deletes the rows of purged jobs, and old rows of no job, in transactions of some ten thousand rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.ids import Kind
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import (
    AnalysisRow,
    AnswerIndexRow,
    Base,
    BatchRow,
    BudgetRow,
    ChunkInputRow,
    ChunkRepeatsRow,
    ChunkRow,
    DeadLetterRow,
    DelayRow,
    DuplicateRow,
    EventRow,
    IndexedChunkRow,
    JobMetadataRow,
    PredictionRow,
    RemoteBatchRow,
    RemoteChunkRow,
    RowErrorRow,
    UnableWorkerRow,
    WorkerRow,
)
from labelmill.core.jobs.events import number_new_events
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.services.purging.selection import may_go

ROWS_AT_ONCE = 20_000  #: Rows of a batch, or entries of the cache's index, that one transaction goes through.
_JOBS_AT_ONCE = 500

#: Tables whose rows belong to a row of a batch, and to a chunk of it.
_BY_ROW = (PredictionRow, RowErrorRow, DuplicateRow)
_BY_CHUNK = (ChunkInputRow, ChunkRepeatsRow, IndexedChunkRow, RemoteChunkRow)
_OF_NO_JOB = (DeadLetterRow, DelayRow, UnableWorkerRow, WorkerRow)
_TABLES: tuple[type[Base], ...] = (*TABLE_OF.values(), *_BY_ROW, *_BY_CHUNK, RemoteBatchRow, *_OF_NO_JOB)
_OTHER_TABLES: tuple[type[Base], ...] = (ChunkRow, AnswerIndexRow, AnalysisRow, EventRow, JobMetadataRow)
#: All tables of which rows are deleted.
PURGED_TABLES = sorted(table.__tablename__ for table in (*_TABLES, *_OTHER_TABLES))


@dataclass
class Deleted:
    """What was, or would be, deleted: jobs by kind, rows by table."""

    jobs: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)

    def delete(self, connection: Connection, table: type[Base], *conditions: ColumnElement[bool]) -> int:
        """Delete rows and count them."""
        count = connection.execute(delete(table).where(*conditions)).rowcount
        self.rows[table.__tablename__] += count
        return count

    def count(self, connection: Connection, table: type[Base], *conditions: ColumnElement[bool]) -> None:
        """Count rows that would be deleted."""
        counted = connection.scalar(select(func.count()).select_from(table).where(*conditions))
        self.rows[table.__tablename__] += int(counted or 0)


def old_events(before: datetime) -> ColumnElement[bool]:
    """Old events of deleted jobs, and of remote actions."""
    of_no_job = and_(*(~exists().where(table.id == EventRow.job_id) for table in TABLE_OF.values()))
    return (EventRow.at < before) & of_no_job


def _is_not_newest() -> ColumnElement[bool]:
    """Excludes the newest event: the next positions continue after it. All events have a position by now."""
    newest = select(func.max(EventRow.position)).scalar_subquery()
    return EventRow.position < newest


def leftovers(before: datetime) -> tuple[tuple[type[Base], ColumnElement[bool]], ...]:
    """Old rows that belong to no job: messages that were dropped, and rows of dead workers."""
    seconds = before.astimezone(UTC).timestamp()
    return (
        (DeadLetterRow, DeadLetterRow.at < before),
        (DelayRow, DelayRow.until < seconds),
        (UnableWorkerRow, UnableWorkerRow.until < seconds),
        (WorkerRow, WorkerRow.seen_at < seconds),
    )


def number_all_events(engine: Engine) -> None:
    """Assign positions to all events before any is deleted, so that no position is assigned twice."""
    while number_new_events(engine):
        pass


def delete_jobs(engine: Engine, kind: Kind, before: datetime, deleted: Deleted) -> Iterator[str]:
    """Delete the jobs of a kind that has no other rows, each in one transaction. Yields each id after the deletion, for
    the job's files."""
    table = TABLE_OF[kind]
    with reading(engine) as connection:
        ids = list(connection.scalars(select(table.id).where(may_go(kind, before)).order_by(table.no)))
    for job_id in ids:
        with writing(engine) as connection:
            # checked again: it may be needed by now
            if not deleted.delete(connection, table, table.id == job_id, may_go(kind, before)):
                continue
            _delete_what_tells_of(connection, job_id, deleted)
        deleted.jobs[kind.value] += 1
        yield job_id


def _delete_what_tells_of(connection: Connection, job_id: str, deleted: Deleted) -> None:
    deleted.delete(connection, AnalysisRow, AnalysisRow.job_id == job_id)
    deleted.delete(connection, JobMetadataRow, JobMetadataRow.job_id == job_id)
    deleted.delete(connection, EventRow, EventRow.job_id == job_id, _is_not_newest())
    deleted.delete(connection, BudgetRow, BudgetRow.scope == job_id)  # the ledger keeps what was spent
    deleted.delete(connection, DelayRow, DelayRow.subject == job_id)
    deleted.delete(connection, UnableWorkerRow, UnableWorkerRow.subject == job_id)


def delete_batches(engine: Engine, before: datetime, deleted: Deleted) -> None:
    """Delete batches. First each is marked, in which case nobody retries it or is shown it any more; then its chunks
    go, some at a time, then what the cache knows of them, at last the batch. A run that was killed is finished by the
    next one, by the marks."""
    _mark_batches(engine, before)
    with reading(engine) as connection:
        marked = connection.execute(
            select(BatchRow.no, BatchRow.id, BatchRow.model_no).where(BatchRow.purging).order_by(BatchRow.no)
        ).all()
    for batch in marked:
        while _delete_chunks(engine, batch.no, deleted):
            pass
    for model_no in sorted({batch.model_no for batch in marked}):
        _forget_answers(engine, model_no, deleted)
    for batch in marked:
        while _delete_events(engine, batch.id, deleted):
            pass
        with writing(engine) as connection:
            for table in (*_BY_ROW, *_BY_CHUNK, RemoteBatchRow):
                deleted.delete(connection, table, table.batch_no == batch.no)
            _delete_what_tells_of(connection, batch.id, deleted)
            deleted.jobs[Kind.BATCH.value] += deleted.delete(connection, BatchRow, BatchRow.no == batch.no)


def _delete_events(engine: Engine, job_id: str, deleted: Deleted) -> bool:
    """Delete some events of a job. False: it has none left, except the newest event of all."""
    some = select(EventRow.no).where(EventRow.job_id == job_id, _is_not_newest()).limit(ROWS_AT_ONCE)
    with writing(engine) as connection:
        return bool(deleted.delete(connection, EventRow, EventRow.no.in_(some)))


def _mark_batches(engine: Engine, before: datetime) -> None:
    """Free the idempotency keys of purged batches: the same submission makes a new batch."""
    going = select(BatchRow.no).where(may_go(Kind.BATCH, before), BatchRow.purging.is_(False)).limit(_JOBS_AT_ONCE)
    while True:
        with reading(engine) as connection:
            numbers = list(connection.scalars(going))
        if not numbers:
            return
        with writing(engine) as connection:
            connection.execute(
                update(BatchRow)
                .where(BatchRow.no.in_(numbers), may_go(Kind.BATCH, before))
                .values(purging=True, idempotency_key=None)
            )


def _delete_chunks(engine: Engine, batch_no: int, deleted: Deleted) -> bool:
    """Delete the next chunks of a batch with everything that belongs to their rows. False: it has none left."""
    first = select(ChunkRow.number, ChunkRow.first_row, ChunkRow.rows).where(ChunkRow.batch_no == batch_no)
    with writing(engine) as connection:
        chunks = connection.execute(first.order_by(ChunkRow.number).limit(_JOBS_AT_ONCE)).all()
        if not chunks:
            return False
        end = next((index for index, chunk in enumerate(chunks) if _is_full(chunks[0], chunk)), len(chunks) - 1)
        numbers = (chunks[0].number, chunks[end].number)
        rows = (chunks[0].first_row, chunks[end].first_row + chunks[end].rows)
        # the chunk first: a worker that still writes to it has then finished, or finds it deleted
        deleted.delete(connection, ChunkRow, ChunkRow.batch_no == batch_no, ChunkRow.number.between(*numbers))
        for table in _BY_ROW:
            deleted.delete(connection, table, table.batch_no == batch_no, table.row >= rows[0], table.row < rows[1])
        for piece in _BY_CHUNK:
            deleted.delete(connection, piece, piece.batch_no == batch_no, piece.number.between(*numbers))
    return True


def _is_full(first: Any, last: Any) -> bool:
    """Whether the chunks from the first to the last have enough rows for a transaction."""
    return bool(last.first_row + last.rows - first.first_row >= ROWS_AT_ONCE)


def _forget_answers(engine: Engine, model_no: int, deleted: Deleted) -> None:
    """Delete the cache's entries for the marked batches. In the order of the index, so that each transaction reads a
    bounded part of it."""
    last = b""
    of_model = AnswerIndexRow.model_no == model_no
    marked = AnswerIndexRow.batch_no.in_(select(BatchRow.no).where(BatchRow.purging))
    while True:
        following = select(AnswerIndexRow.digest).where(of_model, AnswerIndexRow.digest > last)
        with reading(engine) as connection:
            part = following.order_by(AnswerIndexRow.digest).limit(ROWS_AT_ONCE).subquery()
            end = connection.scalar(select(part.c.digest).order_by(part.c.digest.desc()).limit(1))
        if end is None:
            return
        with writing(engine) as connection:
            within = (AnswerIndexRow.digest > last) & (AnswerIndexRow.digest <= end)
            deleted.delete(connection, AnswerIndexRow, of_model, within, marked)
        last = end


def delete_old_rows(engine: Engine, before: datetime, deleted: Deleted) -> None:
    """Delete old events of deleted jobs, messages that were dropped, and rows of dead workers."""
    last = 0
    while True:
        part = select(EventRow.no).where(EventRow.no > last).order_by(EventRow.no).limit(ROWS_AT_ONCE).subquery()
        with reading(engine) as connection:
            end = connection.scalar(select(func.max(part.c.no)))
        if end is None:
            break
        with writing(engine) as connection:
            deleted.delete(
                connection, EventRow, EventRow.no > last, EventRow.no <= end, old_events(before), _is_not_newest()
            )
        last = end
    for table, condition in leftovers(before):
        with writing(engine) as connection:
            deleted.delete(connection, table, condition)


def count_all(engine: Engine, before: datetime) -> Deleted:
    """What would be deleted."""
    deleted = Deleted()
    going = {kind: may_go(kind, before) for kind in Kind}
    going[Kind.BATCH] |= BatchRow.purging
    batches = select(BatchRow.no).where(going[Kind.BATCH])
    with reading(engine) as connection:
        for kind, table in TABLE_OF.items():
            deleted.count(connection, table, going[kind])
            deleted.jobs[kind.value] += deleted.rows[table.__tablename__]
        for of_batch in (ChunkRow, *_BY_CHUNK, *_BY_ROW, RemoteBatchRow, AnswerIndexRow):
            deleted.count(connection, of_batch, of_batch.batch_no.in_(batches))
        ids = [select(TABLE_OF[kind].id).where(condition) for kind, condition in going.items()]
        for of_job in (AnalysisRow, JobMetadataRow):
            deleted.count(connection, of_job, or_(*(of_job.job_id.in_(job_ids) for job_ids in ids)))
        deleted.count(connection, BudgetRow, or_(*(BudgetRow.scope.in_(job_ids) for job_ids in ids)))
        of_jobs = or_(*(EventRow.job_id.in_(job_ids) for job_ids in ids))
        newest = connection.scalar(
            select(EventRow.no).order_by(
                EventRow.position.is_(None).desc(), EventRow.position.desc(), EventRow.no.desc()
            )
        )
        deleted.count(connection, EventRow, or_(of_jobs, old_events(before)), EventRow.no != newest)
        for leftover, condition in leftovers(before):
            deleted.count(connection, leftover, condition)
    return deleted
