"""Embedding and prompt models: vectors by text, what a model is made of, the batch of a training."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "vectors",
        sa.Column("model_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_vectors_model_no_models")),
        sa.PrimaryKeyConstraint("model_no", "digest", name=op.f("pk_vectors")),
    )
    op.add_column("models", sa.Column("recipe", sa.JSON(), nullable=True))
    op.add_column("trainings", sa.Column("batch_id", sa.String(length=64), nullable=True))
    op.add_column("trainings", sa.Column("details", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("trainings", "details")
    op.drop_column("trainings", "batch_id")
    op.drop_column("models", "recipe")
    op.drop_table("vectors")
