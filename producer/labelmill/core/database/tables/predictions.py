"""The answers to rows, the errors of those without, and the views that analysts read of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import LargeBinary, SmallInteger, String, Text
from sqlalchemy.types import REAL

from labelmill.core.database.tables.base import Base, Number, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped


class PredictionRow(Base):
    """The answer to one row and target. Abstained: no label, its scores kept."""

    __tablename__ = "prediction_rows"
    batch_no: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    row: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    target: Mapped[int] = column(SmallInteger, primary_key=True, autoincrement=False)
    external_id: Mapped[str | None] = column(Text)  #: None: the row number; "": the row has no id.
    label: Mapped[str | None] = column(Text)
    labels: Mapped[str | None] = column(Text)  #: A JSON list, for multi-label targets.
    score: Mapped[float] = column(REAL)
    scores: Mapped[bytes] = column(LargeBinary)  #: Little-endian float32 in label order.


class RowErrorRow(Base):
    """Why one row has no answer."""

    __tablename__ = "error_rows"
    batch_no: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    row: Mapped[int] = column(Number, primary_key=True, autoincrement=False)
    external_id: Mapped[str | None] = column(Text)  #: As a prediction's.
    code: Mapped[str] = column(String(40))
    message: Mapped[str] = column(Text)


PREDICTIONS_VIEW = """
CREATE VIEW predictions AS
SELECT b.id AS batch_id, p.row, NULLIF(COALESCE(p.external_id, CAST(p.row AS TEXT)), '') AS external_id,
       t.name AS target, p.label, p.labels, p.score, p.scores
FROM prediction_rows p
JOIN batches b ON b.no = p.batch_no
JOIN model_targets t ON t.model_no = b.model_no AND t.target = p.target
UNION ALL
SELECT b.id, d.row, NULLIF(COALESCE(d.external_id, CAST(d.row AS TEXT)), ''),
       t.name, p.label, p.labels, p.score, p.scores
FROM duplicate_rows d
JOIN prediction_rows p ON p.batch_no = d.batch_no AND p.row = d.first_row
JOIN batches b ON b.no = d.batch_no
JOIN model_targets t ON t.model_no = b.model_no AND t.target = p.target
"""

ROW_ERRORS_VIEW = """
CREATE VIEW row_errors AS
SELECT b.id AS batch_id, e.row, NULLIF(COALESCE(e.external_id, CAST(e.row AS TEXT)), '') AS external_id,
       e.code, e.message
FROM error_rows e
JOIN batches b ON b.no = e.batch_no
UNION ALL
SELECT b.id, d.row, NULLIF(COALESCE(d.external_id, CAST(d.row AS TEXT)), ''), e.code, e.message
FROM duplicate_rows d
JOIN error_rows e ON e.batch_no = d.batch_no AND e.row = d.first_row
JOIN batches b ON b.no = d.batch_no
"""
