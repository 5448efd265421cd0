"""Batches, their chunks, and the rows of them that repeat an earlier one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    Boolean,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    false,
    literal_column,
)

from labelmill.contracts.job_kinds import Kind
from labelmill.core.database.tables.base import (
    Base,
    JobRow,
    Json,
    LeaseColumns,
    Number,
    UtcDateTime,
    column,
    partial_index,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class BatchRow(JobRow):
    kind = Kind.BATCH
    __tablename__ = "batches"
    model_no: Mapped[int] = column(ForeignKey("models.no"))
    model_ref: Mapped[str] = column(String(220))
    mode: Mapped[str] = column(String(12), default="realtime")
    priority: Mapped[str] = column(String(8), default="normal")
    options: Mapped[Json] = column(JSON(none_as_null=True))  #: A `ClassifySpec`.
    idempotency_key: Mapped[str | None] = column(String(200), unique=True)
    content_digest: Mapped[str | None] = column(String(80))
    rows: Mapped[int] = column(Number, default=0)  #: Rows written so far, duplicates included.
    duplicates: Mapped[int] = column(Number, default=0)
    skipped: Mapped[int] = column(Number, default=0, server_default="0")  #: Rows of the source left out.
    text_tokens: Mapped[int | None] = column(Number)  #: About those of the texts of all rows.
    owner_id: Mapped[str | None] = column(String(64))  #: The training or evaluation that it runs for.
    max_cost: Mapped[float | None] = column(Double)  #: Of it, or of the job that it runs for. None: no limit.
    runs_in: Mapped[str] = column(String(12), default="realtime", server_default="realtime")  #: A `Mode`, now.
    stopping: Mapped[str | None] = column(String(12))  #: A `Stopping`; None: its remote batches go on.
    deadline_at: Mapped[datetime | None] = column(UtcDateTime)
    mode_reason: Mapped[str | None] = column(Text)  #: Why it runs in this mode.
    started_at: Mapped[datetime | None] = column(UtcDateTime)
    #: While it is submitted: the latest heartbeat of its submission, by the database's clock.
    submitter_seen_at: Mapped[float | None] = column(Double)
    purging: Mapped[bool] = column(Boolean, default=False, server_default=false())  #: Its rows are being deleted.
    __table_args__ = (Index("ix_batches_state", "state"), Index("ix_batches_model_no", "model_no"))


class ChunkRow(LeaseColumns, Base):
    """A run of rows of one batch: the unit of work and of retry. Counts are of rows, duplicates of them included."""

    __tablename__ = "chunks"
    batch_no: Mapped[int] = column(ForeignKey("batches.no"), primary_key=True)
    number: Mapped[int] = column(Integer, primary_key=True)
    state: Mapped[str] = column(String(12))
    first_row: Mapped[int] = column(Number)
    rows: Mapped[int] = column(Integer)
    texts: Mapped[int] = column(Integer)  #: Distinct texts to send; the other rows repeat earlier ones.
    sent_at: Mapped[float | None] = column(Double)  #: When its latest message was put on the queue.
    attempts: Mapped[int] = column(Integer, default=0, server_default="0")
    faults: Mapped[int] = column(Integer, default=0, server_default="0")  #: Unforeseen, since its last progress.
    labelled: Mapped[int] = column(Number, default=0, server_default="0")
    abstained: Mapped[int] = column(Number, default=0, server_default="0")
    failed: Mapped[int] = column(Number, default=0, server_default="0")
    requests: Mapped[int] = column(Integer, default=0, server_default="0")
    tokens: Mapped[int] = column(Number, default=0, server_default="0")
    cached: Mapped[int] = column(Number, default=0, server_default="0")  #: Of those answered, by the cache.
    __table_args__ = (
        partial_index("ix_chunks_open", "batch_no", "state", "number", where="state IN ('pending', 'claimed')"),
    )


#: In a query's WHERE it lets SQLite use `ix_chunks_open`: it does so where the index's own words stand, and no others.
OPEN_CHUNK = ChunkRow.state.in_([literal_column("'pending'"), literal_column("'claimed'")])


class ChunkInputRow(Base):
    """A chunk's texts and ids, compressed; written once (see `chunks/codec`)."""

    __tablename__ = "chunk_inputs"
    batch_no: Mapped[int] = column(ForeignKey("batches.no"), primary_key=True)
    number: Mapped[int] = column(Integer, primary_key=True)
    data: Mapped[bytes] = column(LargeBinary)


class ChunkRepeatsRow(Base):
    """How many later rows repeat each of a chunk's, compressed (see `chunks/codec`); written once, when the last row is
    known. Chunks whose rows nothing repeats have none."""

    __tablename__ = "chunk_repeats"
    batch_no: Mapped[int] = column(ForeignKey("batches.no"), primary_key=True)
    number: Mapped[int] = column(Integer, primary_key=True)
    data: Mapped[bytes] = column(LargeBinary)


class DuplicateRow(Base):
    """A row whose text stood earlier in the batch, at `first_row`: answered by that row's answer."""

    __tablename__ = "duplicate_rows"
    batch_no: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    row: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    first_row: Mapped[int] = column(Number)
    external_id: Mapped[str | None] = column(Text)
