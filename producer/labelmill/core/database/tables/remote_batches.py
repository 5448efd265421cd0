"""Jobs of Mistral's Batch API (remote batches), and the chunks whose rows they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, Boolean, Double, ForeignKey, Index, Integer, LargeBinary, String

from labelmill.core.database.tables.base import Base, Json, Leased, Number, column, partial_index

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class RemoteBatchRow(Leased, Base):
    """One remote batch. Times are seconds since 1970 by the database's clock. Counts of lines are of those that were
    read."""

    __tablename__ = "remote_batches"
    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    batch_no: Mapped[int] = column(ForeignKey("batches.no"))
    step: Mapped[str] = column(String(12))  #: A `RemoteStep`.
    marker: Mapped[str] = column(String(32), unique=True)  #: Names its file, and is in its metadata.
    embeds: Mapped[bool] = column(Boolean, default=False)  #: It asks for the vectors that later calls need.
    endpoint: Mapped[str | None] = column(String(40))
    model: Mapped[str | None] = column(String(200))
    remote_id: Mapped[str | None] = column(String(100))
    remote_status: Mapped[str | None] = column(String(40))
    input_file: Mapped[str | None] = column(String(100))
    output_file: Mapped[str | None] = column(String(100))
    error_file: Mapped[str | None] = column(String(100))
    inline: Mapped[bool] = column(Boolean, default=False)  #: Its calls go with the job itself, not in a file.
    requests: Mapped[int] = column(Integer, default=0)
    lists: Mapped[int] = column(Integer, default=0)  #: Of these requests, with several texts.
    rows: Mapped[int] = column(Number, default=0)
    answered: Mapped[int] = column(Integer, default=0)  #: Requests whose reply was read or counted by Mistral.
    single_answers: Mapped[int] = column(Integer, default=0)  #: Replies to requests with one text.
    refused_lists: Mapped[int] = column(Integer, default=0)
    reserved: Mapped[int] = column(
        Number, default=0, server_default="0"
    )  #: Under caps, for all of its requests; in billionths of the currency.
    tokens: Mapped[int] = column(Number, default=0, server_default="0")  #: Of its requests, estimated.
    begun_at: Mapped[float] = column(Double)
    creations: Mapped[int] = column(Integer, default=0, server_default="0")  #: Requests that may have made a job.
    creation_sent_at: Mapped[float | None] = column(Double)  #: When the last of them was sent.
    made_at: Mapped[float | None] = column(Double)  #: When it was created at Mistral.
    stop_asked_at: Mapped[float | None] = column(Double)  #: When Mistral was asked to stop it.
    ended_at: Mapped[float | None] = column(Double)  #: When it was seen to have ended.
    failed_reads: Mapped[int] = column(Integer, default=0)
    __table_args__ = (
        Index("ix_remote_batches_batch_no", "batch_no"),
        partial_index("ix_remote_batches_live", "next_look_at", where="step <> 'done'"),
    )


class RemoteChunkRow(Base):
    """A chunk of a batch in mode batch: which remote batch holds it now, and what is known of its rows so far."""

    __tablename__ = "remote_chunks"
    batch_no: Mapped[int] = column(ForeignKey("batches.no"), primary_key=True)
    number: Mapped[int] = column(Integer, primary_key=True)
    remote_no: Mapped[int | None] = column(Number)  #: None: it may be packed.
    requests: Mapped[bytes | None] = column(LargeBinary)  #: The rows of each request, compressed.
    failures: Mapped[Json | None] = column(JSON(none_as_null=True))  #: See `inference/batch_mode/chunk_history`.
    __table_args__ = (Index("ix_remote_chunks_remote_no", "remote_no"),)
