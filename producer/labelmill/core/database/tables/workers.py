"""Running workers, the work that each of them cannot do, and the delays that each of them reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Double, String, Text

from labelmill.core.database.tables.base import Base, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class WorkerRow(Base):
    """A worker that is running or ran recently. Times are seconds since 1970 by the database's clock."""

    __tablename__ = "workers"
    id: Mapped[str] = column(String(32), primary_key=True)  #: Of one run of one worker; chosen by itself.
    name: Mapped[str] = column(String(200))  #: As Celery and Flower call it.
    queues: Mapped[str] = column(String(200))  #: Those it serves: `,classify,train,`.
    seen_at: Mapped[float] = column(Double)
    resumed_at: Mapped[float | None] = column(Double)  #: When it was seen again after it had stopped renewing its row.


class UnableWorkerRow(Base):
    """Work that a worker cannot do. It counts until `until`, when the worker tries again."""

    __tablename__ = "unable_workers"
    worker_id: Mapped[str] = column(String(32), primary_key=True)
    subject: Mapped[str] = column(String(100), primary_key=True)  #: `mistral`, `model:12`, or a job's id.
    reason: Mapped[str] = column(Text)
    until: Mapped[float] = column(Double)


class DelayRow(Base):
    """Why work that a worker has begun is delayed. It counts until `until`."""

    __tablename__ = "delays"
    worker_id: Mapped[str] = column(String(32), primary_key=True)
    subject: Mapped[str] = column(String(100), primary_key=True)  #: `model:12`, `redis`, or a job's id.
    reason: Mapped[str] = column(String(40))  #: A `DelayReason`.
    message: Mapped[str] = column(Text)
    since: Mapped[float] = column(Double)
    until: Mapped[float] = column(Double)
