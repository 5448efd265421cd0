"""How many rows of its source a batch left out."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("batches", sa.Column("skipped", number, server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("batches", "skipped")
