"""The views show no id for a row that has none, where its number stood before."""

from alembic import op

from labelmill.core.database.tables import PREDICTIONS_VIEW, ROW_ERRORS_VIEW

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    _make_views_anew()


def downgrade() -> None:
    _make_views_anew()  # the older code reads these too


def _make_views_anew() -> None:
    op.execute("DROP VIEW row_errors")
    op.execute("DROP VIEW predictions")
    op.execute(PREDICTIONS_VIEW)
    op.execute(ROW_ERRORS_VIEW)
