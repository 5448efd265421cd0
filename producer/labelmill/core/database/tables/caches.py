"""Caches that save requests: vectors of texts, and where a text has been answered before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, Integer, LargeBinary

from labelmill.core.database.tables.base import Base, Number, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class VectorRow(Base):
    """The embedding of a text, kept so that no text is embedded twice for training."""

    __tablename__ = "vectors"
    model_no: Mapped[int] = column(ForeignKey("models.no"), primary_key=True)
    digest: Mapped[bytes] = column(LargeBinary, primary_key=True)  #: BLAKE2b of the text, 16 bytes.
    data: Mapped[bytes] = column(LargeBinary)  #: Little-endian float16.


class AnswerIndexRow(Base):
    """Where a model version has answered a text: its digest → a row of an earlier batch."""

    __tablename__ = "answer_index"
    model_no: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = column(LargeBinary, primary_key=True, autoincrement=False)
    batch_no: Mapped[int] = column(Number)
    row: Mapped[int] = column(Number)


class IndexedChunkRow(Base):
    """A chunk whose answers are in `answer_index`."""

    __tablename__ = "indexed_chunks"
    batch_no: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    number: Mapped[int] = column(Integer, primary_key=True, autoincrement=False)
