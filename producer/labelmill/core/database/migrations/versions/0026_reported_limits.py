"""The limits of models as Mistral's answers told them last, and the tokens of remote batches."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "reported_limits",
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_left_of_month", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_reported_limits")),
    )
    op.add_column("remote_batches", sa.Column("tokens", _NUMBER, server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("remote_batches", "tokens")
    op.drop_table("reported_limits")
