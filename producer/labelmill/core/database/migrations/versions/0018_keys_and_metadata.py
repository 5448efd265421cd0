"""Every kind of job has an idempotency key, as batches had before, and metadata."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_KEYED_NOW = ("datasets", "trainings", "evaluations")


def upgrade() -> None:
    for table in (*_KEYED_NOW, "batches"):
        op.add_column(table, sa.Column("request_digest", sa.String(80), nullable=True))
    for table in _KEYED_NOW:
        op.add_column(table, sa.Column("idempotency_key", sa.String(200), nullable=True))
        op.create_index(f"ix_{table}_idempotency_key", table, ["idempotency_key"], unique=True)
    op.create_table(
        "job_metadata",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_job_metadata")),
    )
    op.create_index("ix_job_metadata_name_value_job_id", "job_metadata", ["name", "value", "job_id"])


def downgrade() -> None:
    op.drop_table("job_metadata")
    for table in _KEYED_NOW:
        op.drop_index(f"ix_{table}_idempotency_key", table)
        op.drop_column(table, "idempotency_key")
    for table in (*_KEYED_NOW, "batches"):
        op.drop_column(table, "request_digest")
