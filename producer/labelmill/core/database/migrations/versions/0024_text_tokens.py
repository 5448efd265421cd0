"""About how many tokens the texts of a batch have, for its estimate."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("batches", sa.Column("text_tokens", number, nullable=True))


def downgrade() -> None:
    op.drop_column("batches", "text_tokens")
