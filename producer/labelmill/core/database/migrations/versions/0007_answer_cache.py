"""Earlier answers found by text, and how many rows each chunk took from them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "answer_index",
        sa.Column("model_no", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("batch_no", _NUMBER, nullable=False),
        sa.Column("row", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("model_no", "digest", name=op.f("pk_answer_index")),
    )
    op.create_table(
        "indexed_chunks",
        sa.Column("batch_no", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("batch_no", "number", name=op.f("pk_indexed_chunks")),
    )
    op.add_column("chunks", sa.Column("cached", _NUMBER, server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("chunks", "cached")
    op.drop_table("indexed_chunks")
    op.drop_table("answer_index")
