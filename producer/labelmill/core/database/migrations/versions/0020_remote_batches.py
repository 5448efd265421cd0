"""Batches that run in Mistral's Batch API: in which mode each runs now, and their remote batches."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_IS_LIVE = sa.text("step <> 'done'")


def upgrade() -> None:
    op.add_column("batches", sa.Column("runs_in", sa.String(12), server_default="realtime", nullable=False))
    op.add_column("batches", sa.Column("stopping", sa.String(12)))
    op.add_column("batches", sa.Column("deadline_at", sa.DateTime(timezone=True)))
    op.add_column("batches", sa.Column("mode_reason", sa.Text()))
    op.create_table(
        "remote_batches",
        sa.Column("no", _NUMBER, nullable=False, autoincrement=True),
        sa.Column("batch_no", _NUMBER, nullable=False),
        sa.Column("step", sa.String(12), nullable=False),
        sa.Column("marker", sa.String(32), nullable=False),
        sa.Column("embeds", sa.Boolean(), nullable=False),
        sa.Column("endpoint", sa.String(40)),
        sa.Column("model", sa.String(200)),
        sa.Column("remote_id", sa.String(100)),
        sa.Column("remote_status", sa.String(40)),
        sa.Column("input_file", sa.String(100)),
        sa.Column("output_file", sa.String(100)),
        sa.Column("error_file", sa.String(100)),
        sa.Column("inline", sa.Boolean(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("lists", sa.Integer(), nullable=False),
        sa.Column("rows", _NUMBER, nullable=False),
        sa.Column("answered", sa.Integer(), nullable=False),
        sa.Column("single_answers", sa.Integer(), nullable=False),
        sa.Column("refused_lists", sa.Integer(), nullable=False),
        sa.Column("begun_at", sa.Double(), nullable=False),
        sa.Column("made_at", sa.Double()),
        sa.Column("stop_asked_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("failed_reads", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_until", sa.Double()),
        sa.Column("next_look_at", sa.Double()),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("faults", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("no", name="pk_remote_batches"),
        sa.ForeignKeyConstraint(["batch_no"], ["batches.no"], name="fk_remote_batches_batch_no_batches"),
        sa.UniqueConstraint("marker", name="uq_remote_batches_marker"),
    )
    op.create_index("ix_remote_batches_batch_no", "remote_batches", ["batch_no"])
    op.create_index(
        "ix_remote_batches_live",
        "remote_batches",
        ["next_look_at"],
        sqlite_where=_IS_LIVE,
        postgresql_where=_IS_LIVE,
    )
    op.create_table(
        "remote_chunks",
        sa.Column("batch_no", _NUMBER, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("remote_no", _NUMBER),
        sa.Column("requests", sa.LargeBinary()),
        sa.Column("failures", sa.JSON()),
        sa.PrimaryKeyConstraint("batch_no", "number", name="pk_remote_chunks"),
        sa.ForeignKeyConstraint(["batch_no"], ["batches.no"], name="fk_remote_chunks_batch_no_batches"),
    )
    op.create_index("ix_remote_chunks_remote_no", "remote_chunks", ["remote_no"])


def downgrade() -> None:
    op.drop_table("remote_chunks")
    op.drop_table("remote_batches")
    for column in ("mode_reason", "deadline_at", "stopping", "runs_in"):
        op.drop_column("batches", column)
