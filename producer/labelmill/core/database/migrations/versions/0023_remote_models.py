"""Mistral's own models, as workers saw them listed last."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.create_table(
        "remote_models",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("aliases", sa.JSON(), nullable=False),
        sa.Column("deprecated_at", sa.String(40), nullable=True),
        sa.Column("replacement", sa.String(200), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remote_models")),
    )


def downgrade() -> None:
    op.drop_table("remote_models")
