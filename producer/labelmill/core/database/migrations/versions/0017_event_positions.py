"""Events get a position when they are first read, by which readers go on; batches that are being purged are marked."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_UNNUMBERED = sa.text("position IS NULL")


def upgrade() -> None:
    op.add_column("events", sa.Column("position", sa.BigInteger(), nullable=True))
    op.create_index("ix_events_position", "events", ["position"], unique=True)
    op.create_index("ix_events_unnumbered", "events", ["no"], sqlite_where=_UNNUMBERED, postgresql_where=_UNNUMBERED)
    op.add_column("batches", sa.Column("purging", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("batches", "purging")
    op.drop_index("ix_events_unnumbered", "events")
    op.drop_index("ix_events_position", "events")
    op.drop_column("events", "position")
