"""Unforeseen faults are counted where they happen, since the last progress, and not in a job's whole history."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_TABLES = ("chunks", "datasets", "trainings", "evaluations", "models")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("faults", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "faults")
