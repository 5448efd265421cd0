"""A ledger of what was paid for; a batch knows the training or the evaluation that it runs for."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_OWNERS = (("trainings", "batch_id"), ("evaluations", "batch_id"), ("evaluations", "calibration_batch_id"))


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("batch_id", sa.String(64), nullable=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("mode", sa.String(12), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("amount", sa.Double(), nullable=True),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("input_price", sa.Double(), nullable=True),
        sa.Column("output_price", sa.Double(), nullable=True),
        sa.Column("prices_as_of", sa.String(20), nullable=True),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_ledger")),
    )
    op.create_index("ix_ledger_job_id", "ledger", ["job_id"])
    op.create_index("ix_ledger_day", "ledger", ["day"])
    op.add_column("batches", sa.Column("owner_id", sa.String(64), nullable=True))
    for table, column in _OWNERS:
        op.execute(
            f"UPDATE batches SET owner_id = (SELECT max(o.id) FROM {table} o WHERE o.{column} = batches.id) "  # noqa: S608
            f"WHERE id IN (SELECT {column} FROM {table} WHERE {column} IS NOT NULL)"
        )


def downgrade() -> None:
    op.drop_column("batches", "owner_id")
    op.drop_table("ledger")
