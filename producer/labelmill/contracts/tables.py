"""Every table, typed. The same on SQLite and PostgreSQL; `migrations/` makes them, and CI holds the two together.

Rows of a batch are narrow on purpose: integer keys, float32 scores in the model version's label order. Analysts read
the views `predictions` and `row_errors`, which put ids and names back and give every duplicate its own line.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    literal_column,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import REAL

Json = dict[str, Any]
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only when the type is INTEGER


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always with its time zone (SQLite keeps none)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


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


class _Job:
    """What every job has."""

    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(24))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(40))


class _Leased:
    """Who works on it now, and when to look again. Times are seconds since 1970 by the database's clock."""

    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[float | None] = mapped_column(Double)
    next_look_at: Mapped[float | None] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")


class DatasetRow(_Job, _Leased, Base):
    __tablename__ = "datasets"
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int | None] = mapped_column(Integer)  #: Given when ready.
    repeats: Mapped[str | None] = mapped_column(String(64))  #: The dataset with the same fingerprint, if there was one.
    spec: Mapped[Json] = mapped_column(JSON(none_as_null=True))  #: A `PrepareSpec`.
    splits: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    labels: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    dropped: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    label_schema: Mapped[list[Json] | None] = mapped_column(JSON(none_as_null=True))
    files: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: split → path
    fingerprint: Mapped[str | None] = mapped_column(String(80))
    report: Mapped[Json | None] = mapped_column(
        JSON(none_as_null=True)
    )  #: Bad rows by line and what else a reader wants to know.
    __table_args__ = (
        Index("ix_datasets_name_version", "name", "version", unique=True,
              sqlite_where=text("repeats IS NULL"), postgresql_where=text("repeats IS NULL")),
        Index("ix_datasets_state", "state"),
    )  # fmt: skip


class TrainingRow(_Job, _Leased, Base):
    __tablename__ = "trainings"
    name: Mapped[str] = mapped_column(String(200))  #: The model's name.
    method: Mapped[str] = mapped_column(String(20))
    dataset_id: Mapped[str] = mapped_column(String(64))
    options: Mapped[Json] = mapped_column(JSON(none_as_null=True))  #: A `TrainSpec`.
    max_cost: Mapped[float | None] = mapped_column(Double)
    approved: Mapped[bool] = mapped_column(default=False, server_default=false())
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    changed_at: Mapped[float | None] = mapped_column(Double)  #: Last sign of life at Mistral, by the database's clock.
    due_at: Mapped[float | None] = mapped_column(Double)  #: No look before this moment, however many messages ask.
    remote_files: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: split → Mistral's file id
    remote_job: Mapped[str | None] = mapped_column(String(100))
    remote_status: Mapped[str | None] = mapped_column(String(40))
    remote_model: Mapped[str | None] = mapped_column(String(200))
    estimate: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    cost: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    checkpoints: Mapped[list[Json] | None] = mapped_column(JSON(none_as_null=True))
    model_no: Mapped[int | None] = mapped_column(ForeignKey("models.no"))
    batch_id: Mapped[str | None] = mapped_column(String(64))  #: The batch that embeds or classifies for it.
    details: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: What the method reports, by target.
    __table_args__ = (Index("ix_trainings_state", "state"),)


class ModelRow(_Leased, Base):
    """One model version. A raw Mistral id used directly is a row too, with version 0 and its id as name.

    Its lease is for what is owed to Mistral: `remote_wish`.
    """

    __tablename__ = "models"
    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(20), default="ready", server_default="ready")
    promoted: Mapped[bool] = mapped_column(default=False, server_default=false())
    method: Mapped[str] = mapped_column(String(20))
    remote_model: Mapped[str | None] = mapped_column(String(200))
    label_schema: Mapped[list[Json] | None] = mapped_column(
        JSON(none_as_null=True)
    )  #: None until a raw id's first good answer.
    thresholds: Mapped[Json | None] = mapped_column(
        JSON(none_as_null=True)
    )  #: target → threshold, or label → threshold
    recipe: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: What the method needs to classify.
    training_id: Mapped[str | None] = mapped_column(String(64))
    dataset_id: Mapped[str | None] = mapped_column(String(64))
    dataset_fingerprint: Mapped[str | None] = mapped_column(String(80))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    note: Mapped[str | None] = mapped_column(Text)  #: A person's words about it.
    calibration: Mapped[Json | None] = mapped_column(
        JSON(none_as_null=True)
    )  #: target → its temperature and what it was fitted on
    remote_state: Mapped[str | None] = mapped_column(String(12))  #: `archived` or `deleted` at Mistral, if it is.
    remote_wish: Mapped[str | None] = mapped_column(String(12))  #: A `RemoteWish` that a worker owes to Mistral.
    remote_error: Mapped[str | None] = mapped_column(Text)  #: What Mistral last said against it.
    __table_args__ = (UniqueConstraint("name", "version"), Index("ix_models_remote_wish", "remote_wish"))


class ModelAliasRow(Base):
    """A second name of a version: `intents@champion`."""

    __tablename__ = "model_aliases"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    alias: Mapped[str] = mapped_column(String(100), primary_key=True)
    model_no: Mapped[int] = mapped_column(ForeignKey("models.no"))


class PromotionRow(Base):
    """Which version answered to a bare name, since when: append-only but for what a rollback takes back."""

    __tablename__ = "promotions"
    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    model_no: Mapped[int] = mapped_column(ForeignKey("models.no"))
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    undone: Mapped[bool] = mapped_column(default=False, server_default=false())


class ModelTargetRow(Base):
    """The names behind the target numbers of prediction rows."""

    __tablename__ = "model_targets"
    model_no: Mapped[int] = mapped_column(ForeignKey("models.no"), primary_key=True)
    target: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))


class BatchRow(_Job, Base):
    __tablename__ = "batches"
    model_no: Mapped[int] = mapped_column(ForeignKey("models.no"))
    model_ref: Mapped[str] = mapped_column(String(220))
    mode: Mapped[str] = mapped_column(String(12), default="realtime")
    priority: Mapped[str] = mapped_column(String(8), default="normal")
    options: Mapped[Json] = mapped_column(JSON(none_as_null=True))  #: A `ClassifySpec`.
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    content_digest: Mapped[str | None] = mapped_column(String(80))
    rows: Mapped[int] = mapped_column(Number, default=0)  #: Rows written so far, duplicates included.
    duplicates: Mapped[int] = mapped_column(Number, default=0)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    __table_args__ = (Index("ix_batches_state", "state"), Index("ix_batches_model_no", "model_no"))


class ChunkRow(Base):
    """A run of rows of one batch: the unit of work and of retry. Counts are of rows, duplicates of them included."""

    __tablename__ = "chunks"
    batch_no: Mapped[int] = mapped_column(ForeignKey("batches.no"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(12))
    first_row: Mapped[int] = mapped_column(Number)
    rows: Mapped[int] = mapped_column(Integer)
    texts: Mapped[int] = mapped_column(Integer)  #: Distinct texts to send; the other rows repeat earlier ones.
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[float | None] = mapped_column(Double)
    sent_at: Mapped[float | None] = mapped_column(Double)  #: When its latest message was put on the queue.
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    labelled: Mapped[int] = mapped_column(Number, default=0, server_default="0")
    abstained: Mapped[int] = mapped_column(Number, default=0, server_default="0")
    failed: Mapped[int] = mapped_column(Number, default=0, server_default="0")
    requests: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    tokens: Mapped[int] = mapped_column(Number, default=0, server_default="0")
    cached: Mapped[int] = mapped_column(Number, default=0, server_default="0")  #: Of those answered, by the cache.
    __table_args__ = (
        Index("ix_chunks_open", "batch_no", "state", "number",
              sqlite_where=text("state IN ('pending', 'claimed')"),
              postgresql_where=text("state IN ('pending', 'claimed')")),
    )  # fmt: skip


#: In a query's WHERE it lets SQLite use `ix_chunks_open`: it does so where the index's own words stand, and no others.
OPEN_CHUNK = ChunkRow.state.in_([literal_column("'pending'"), literal_column("'claimed'")])


class ChunkInputRow(Base):
    """A chunk's texts and ids, compressed; written once (see `chunk_codec`)."""

    __tablename__ = "chunk_inputs"
    batch_no: Mapped[int] = mapped_column(ForeignKey("batches.no"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class DuplicateRow(Base):
    """A row whose text stood earlier in the batch, at `first_row`: answered by that row's answer."""

    __tablename__ = "duplicate_rows"
    batch_no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    row: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    first_row: Mapped[int] = mapped_column(Number)
    external_id: Mapped[str | None] = mapped_column(Text)
    __table_args__ = (Index("ix_duplicate_rows_first_row", "batch_no", "first_row"),)


class PredictionRow(Base):
    """The answer to one row and target. Abstained: no label, its scores kept."""

    __tablename__ = "prediction_rows"
    batch_no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    row: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    target: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    external_id: Mapped[str | None] = mapped_column(Text)  #: None: the row number.
    label: Mapped[str | None] = mapped_column(Text)
    labels: Mapped[str | None] = mapped_column(Text)  #: A JSON list, for multi-label targets.
    score: Mapped[float] = mapped_column(REAL)
    scores: Mapped[bytes] = mapped_column(LargeBinary)  #: Little-endian float32 in label order.


class RowErrorRow(Base):
    """Why one row has no answer."""

    __tablename__ = "error_rows"
    batch_no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    row: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    external_id: Mapped[str | None] = mapped_column(Text)
    code: Mapped[str] = mapped_column(String(40))
    message: Mapped[str] = mapped_column(Text)


class VectorRow(Base):
    """The embedding of a text, kept so that no text is embedded twice for training."""

    __tablename__ = "vectors"
    model_no: Mapped[int] = mapped_column(ForeignKey("models.no"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)  #: BLAKE2b of the text, 16 bytes.
    data: Mapped[bytes] = mapped_column(LargeBinary)  #: Little-endian float16.


class AnswerIndexRow(Base):
    """Where a model version has answered a text: its digest → a row of an earlier batch."""

    __tablename__ = "answer_index"
    model_no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True, autoincrement=False)
    batch_no: Mapped[int] = mapped_column(Number)
    row: Mapped[int] = mapped_column(Number)


class IndexedChunkRow(Base):
    """A chunk whose answers are in `answer_index`."""

    __tablename__ = "indexed_chunks"
    batch_no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


class EvaluationRow(_Job, _Leased, Base):
    __tablename__ = "evaluations"
    model_no: Mapped[int] = mapped_column(ForeignKey("models.no"))
    model_ref: Mapped[str] = mapped_column(String(220))
    dataset_id: Mapped[str] = mapped_column(String(64))
    dataset_ref: Mapped[str] = mapped_column(String(220))
    split: Mapped[str] = mapped_column(String(20))
    batch_id: Mapped[str | None] = mapped_column(String(64))  #: The batch that classifies the split.
    metrics: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    options: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: An `EvaluateSpec`.
    calibration_batch_id: Mapped[str | None] = mapped_column(String(64))  #: The batch that classifies validation.
    summary: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))  #: Counts, time and cost of all targets.
    __table_args__ = (Index("ix_evaluations_state", "state"), Index("ix_evaluations_model_no", "model_no"))


class AnalysisRow(Base):
    """What a report draws of a job, compressed (see `analysis_codec`); too much for the job's own row."""

    __tablename__ = "analyses"
    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class EventRow(Base):
    """What happened to a job: append-only."""

    __tablename__ = "events"
    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(64), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    state: Mapped[str | None] = mapped_column(String(24))
    chunk: Mapped[int | None] = mapped_column(Integer)
    message: Mapped[str] = mapped_column(Text)


class DeadLetterRow(Base):
    """A message that a worker took off a queue and dropped; the newest `KEPT_DEAD_LETTERS` are kept."""

    __tablename__ = "dead_letters"
    no: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    queue: Mapped[str | None] = mapped_column(String(100))
    task: Mapped[str | None] = mapped_column(String(100))
    message_id: Mapped[str | None] = mapped_column(String(100))
    reason: Mapped[str] = mapped_column(String(500))
    excerpt: Mapped[str] = mapped_column(String(500))  #: Its beginning, without keys and passwords.


KEPT_DEAD_LETTERS = 1000


class LockRow(Base):
    """A named lease for work that one process at a time should do (the sweep)."""

    __tablename__ = "locks"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    token: Mapped[str | None] = mapped_column(String(32))
    until: Mapped[float] = mapped_column(Double, default=0.0)


PREDICTIONS_VIEW = """
CREATE VIEW predictions AS
SELECT b.id AS batch_id, p.row, COALESCE(p.external_id, CAST(p.row AS TEXT)) AS external_id, t.name AS target,
       p.label, p.labels, p.score, p.scores
FROM prediction_rows p
JOIN batches b ON b.no = p.batch_no
JOIN model_targets t ON t.model_no = b.model_no AND t.target = p.target
UNION ALL
SELECT b.id, d.row, COALESCE(d.external_id, CAST(d.row AS TEXT)), t.name, p.label, p.labels, p.score, p.scores
FROM duplicate_rows d
JOIN prediction_rows p ON p.batch_no = d.batch_no AND p.row = d.first_row
JOIN batches b ON b.no = d.batch_no
JOIN model_targets t ON t.model_no = b.model_no AND t.target = p.target
"""

ROW_ERRORS_VIEW = """
CREATE VIEW row_errors AS
SELECT b.id AS batch_id, e.row, COALESCE(e.external_id, CAST(e.row AS TEXT)) AS external_id, e.code, e.message
FROM error_rows e
JOIN batches b ON b.no = e.batch_no
UNION ALL
SELECT b.id, d.row, COALESCE(d.external_id, CAST(d.row AS TEXT)), e.code, e.message
FROM duplicate_rows d
JOIN error_rows e ON e.batch_no = d.batch_no AND e.row = d.first_row
JOIN batches b ON b.no = d.batch_no
"""
