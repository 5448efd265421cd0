"""Remote batches know what was reserved for them under a cap."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("remote_batches", sa.Column("reserved", _NUMBER, server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("remote_batches", "reserved")
