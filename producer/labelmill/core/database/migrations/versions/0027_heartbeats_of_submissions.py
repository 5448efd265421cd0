"""When the submission of a batch was last seen alive."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.add_column("batches", sa.Column("submitter_seen_at", sa.Double(), nullable=True))
    batches = sa.table("batches", sa.column("state", sa.String), sa.column("submitter_seen_at", sa.Double))
    submitting = batches.update().where(batches.c.state == "submitting")
    op.execute(submitting.values(submitter_seen_at=time.time()))


def downgrade() -> None:
    op.drop_column("batches", "submitter_seen_at")
