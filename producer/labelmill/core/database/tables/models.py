"""Model versions, their targets, their aliases, and which version is promoted."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import JSON, Boolean, ForeignKey, Index, Integer, SmallInteger, String, Text, UniqueConstraint, false

from labelmill.core.database.tables.base import Base, Json, Leased, Number, UtcDateTime, column, utc_now

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class ModelRow(Leased, Base):
    """One model version. A raw Mistral id used directly is a row too, with version 0 and its id as name.

    Its lease is for the remote action that is pending at Mistral: `remote_wish`.
    """

    __tablename__ = "models"
    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    name: Mapped[str] = column(String(200))
    version: Mapped[int] = column(Integer)
    state: Mapped[str] = column(String(20), default="ready", server_default="ready")
    promoted: Mapped[bool] = column(Boolean, default=False, server_default=false())
    method: Mapped[str] = column(String(20))
    remote_model: Mapped[str | None] = column(String(200))
    label_schema: Mapped[list[Json] | None] = column(
        JSON(none_as_null=True)
    )  #: None until a raw id's first good answer.
    thresholds: Mapped[Json | None] = column(JSON(none_as_null=True))  #: target → threshold, or label → threshold
    recipe: Mapped[Json | None] = column(JSON(none_as_null=True))  #: What the method needs to classify.
    training_id: Mapped[str | None] = column(String(64))
    dataset_id: Mapped[str | None] = column(String(64))
    dataset_fingerprint: Mapped[str | None] = column(String(80))
    created_at: Mapped[datetime] = column(UtcDateTime, default=utc_now)
    note: Mapped[str | None] = column(Text)  #: A note written by a person.
    calibration: Mapped[Json | None] = column(
        JSON(none_as_null=True)
    )  #: target → its temperature and what it was fitted on
    remote_state: Mapped[str | None] = column(String(12))  #: `archived` or `deleted` at Mistral, if it is.
    remote_wish: Mapped[str | None] = column(String(12))  #: The pending `RemoteAction`; None: there is none.
    remote_error: Mapped[str | None] = column(Text)  #: Why Mistral refused it last.
    __table_args__ = (UniqueConstraint("name", "version"), Index("ix_models_remote_wish", "remote_wish"))


class ModelAliasRow(Base):
    """A second name of a version: `intents@champion`."""

    __tablename__ = "model_aliases"
    name: Mapped[str] = column(String(200), primary_key=True)
    alias: Mapped[str] = column(String(100), primary_key=True)
    model_no: Mapped[int] = column(ForeignKey("models.no"))


class PromotionRow(Base):
    """Which version a bare name stood for, and since when: append-only, except that a rollback marks rows as undone."""

    __tablename__ = "promotions"
    no: Mapped[int] = column(Number, primary_key=True, autoincrement=True)
    name: Mapped[str] = column(String(200), index=True)
    model_no: Mapped[int] = column(ForeignKey("models.no"))
    at: Mapped[datetime] = column(UtcDateTime, default=utc_now)
    undone: Mapped[bool] = column(Boolean, default=False, server_default=false())


class ModelTargetRow(Base):
    """The names behind the target numbers of prediction rows."""

    __tablename__ = "model_targets"
    model_no: Mapped[int] = column(ForeignKey("models.no"), primary_key=True)
    target: Mapped[int] = column(SmallInteger, primary_key=True)
    name: Mapped[str] = column(String(200))
