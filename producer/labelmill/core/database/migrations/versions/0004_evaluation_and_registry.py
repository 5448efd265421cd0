"""Evaluations with their figures; the registry's aliases, notes, promotions and actions pending at Mistral."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0007"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _model_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("calibration", sa.JSON(), nullable=True),
        sa.Column("remote_state", sa.String(length=12), nullable=True),
        sa.Column("remote_wish", sa.String(length=12), nullable=True),
        sa.Column("remote_error", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("next_look_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
    ]


def _evaluation_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("options", sa.JSON(), nullable=True),
        sa.Column("calibration_batch_id", sa.String(length=64), nullable=True),
        sa.Column("summary", sa.JSON(), nullable=True),
    ]


def upgrade() -> None:
    for column in _model_columns():
        op.add_column("models", column)
    for column in _evaluation_columns():
        op.add_column("evaluations", column)
    op.create_index("ix_models_remote_wish", "models", ["remote_wish"])
    op.create_index("ix_evaluations_model_no", "evaluations", ["model_no"])
    op.create_index("ix_batches_model_no", "batches", ["model_no"])
    op.create_table(
        "analyses",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_analyses")),
    )
    op.create_table(
        "model_aliases",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("alias", sa.String(length=100), nullable=False),
        sa.Column("model_no", _NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_model_aliases_model_no_models")),
        sa.PrimaryKeyConstraint("name", "alias", name=op.f("pk_model_aliases")),
    )
    op.create_table(
        "promotions",
        sa.Column("no", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("model_no", _NUMBER, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_promotions_model_no_models")),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_promotions")),
    )
    op.create_index("ix_promotions_name", "promotions", ["name"])


def downgrade() -> None:
    for table in ("promotions", "model_aliases", "analyses"):
        op.drop_table(table)
    op.drop_index("ix_batches_model_no", "batches")
    op.drop_index("ix_evaluations_model_no", "evaluations")
    op.drop_index("ix_models_remote_wish", "models")
    for column in _evaluation_columns():
        op.drop_column("evaluations", column.name)
    for column in _model_columns():
        op.drop_column("models", column.name)
