"""Events of jobs, and messages that were dropped."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Index, Integer, String, Text

from labelmill.core.database.tables.base import Base, Number, UtcDateTime, column, partial_index, utc_now

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class EventRow(Base):
    """An event of a job: append-only. This table is the outbox that progress streams, webhooks and metrics read with
    `core/jobs/events.read_events`."""

    __tablename__ = "events"
    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = column(String(64), index=True)
    at: Mapped[datetime] = column(UtcDateTime, default=utc_now)
    state: Mapped[str | None] = column(String(24))
    chunk: Mapped[int | None] = column(Integer)
    message: Mapped[str] = column(Text)
    #: Its place among all events, given when it is first read: `no` is drawn before its transaction is committed.
    position: Mapped[int | None] = column(BigInteger)
    __table_args__ = (
        Index("ix_events_position", "position", unique=True),
        partial_index("ix_events_unnumbered", "no", where="position IS NULL"),
    )


class DeadLetterRow(Base):
    """A message that a worker took off a queue and dropped; the newest `KEPT_DEAD_LETTERS` are kept."""

    __tablename__ = "dead_letters"
    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = column(UtcDateTime, default=utc_now)
    queue: Mapped[str | None] = column(String(100))
    task: Mapped[str | None] = column(String(100))
    message_id: Mapped[str | None] = column(String(100))
    reason: Mapped[str] = column(String(500))
    excerpt: Mapped[str] = column(String(500))  #: Its beginning, without keys and passwords.


KEPT_DEAD_LETTERS = 1000
