"""Caps on what batches and evaluations may spend, and what is reserved of them."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "budgets",
        sa.Column("scope", sa.String(80), nullable=False),
        sa.Column("spent", number, server_default="0", nullable=False),
        sa.Column("reserved", number, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_budgets")),
    )
    op.create_table(
        "reservations",
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(80), nullable=False),
        sa.Column("amount", number, nullable=False),
        sa.Column("batch_no", number, nullable=True),
        sa.Column("chunk", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("holder", "scope", name=op.f("pk_reservations")),
    )
    op.create_index("ix_reservations_scope", "reservations", ["scope"])
    op.add_column("batches", sa.Column("max_cost", sa.Double(), nullable=True))
    op.add_column("evaluations", sa.Column("max_cost", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("evaluations", "max_cost")
    op.drop_column("batches", "max_cost")
    op.drop_table("reservations")
    op.drop_table("budgets")
