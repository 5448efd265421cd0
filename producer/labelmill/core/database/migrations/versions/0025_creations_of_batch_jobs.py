"""How often a batch job was asked for, and when: a creation whose answer was lost may have made one."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.add_column("remote_batches", sa.Column("creations", sa.Integer, nullable=False, server_default="0"))
    op.add_column("remote_batches", sa.Column("creation_sent_at", sa.Double, nullable=True))


def downgrade() -> None:
    op.drop_column("remote_batches", "creation_sent_at")
    op.drop_column("remote_batches", "creations")
