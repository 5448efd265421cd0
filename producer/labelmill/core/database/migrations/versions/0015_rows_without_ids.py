"""The views show no id for a row that has none, where its number stood before."""

from alembic import op

revision = "0015"
down_revision = "0014"


# as they were then: what the tables' module says now may name columns that came later
_PREDICTIONS = """
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

_ROW_ERRORS = """
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


def upgrade() -> None:
    _make_views_anew()


def downgrade() -> None:
    _make_views_anew()  # the older code reads these too


def _make_views_anew() -> None:
    op.execute("DROP VIEW row_errors")
    op.execute("DROP VIEW predictions")
    op.execute(_PREDICTIONS)
    op.execute(_ROW_ERRORS)
