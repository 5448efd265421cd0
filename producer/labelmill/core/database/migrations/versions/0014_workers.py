"""Which workers live, and what they cannot do: so that one without a key or a file leaves the work to the others."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("queues", sa.String(200), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("resumed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "unable_workers",
        sa.Column("worker_id", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", "subject", name=op.f("pk_unable_workers")),
    )


def downgrade() -> None:
    op.drop_table("unable_workers")
    op.drop_table("workers")
