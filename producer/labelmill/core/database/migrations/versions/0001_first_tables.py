"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


# as they were then: what the tables' module says now may name columns that came later
_PREDICTIONS = """
CREATE VIEW predictions AS
SELECT b.id AS batch_id, p.row, COALESCE(p.external_id, CAST(p.row AS TEXT)) AS external_id, t.name AS target,
       p.label, p.labels, p.score, p.scores
FROM prediction_rows p
JOIN batches b ON b.no = p.batch_no
JOIN model_targets t ON t.model_no = b.model_no AND t.target = p.target
UNION ALL
SELECT b.id, d.row, COALESCE(d.external_id, CAST(d.row AS TEXT)), t.name, p.label, p.labels, p.score, p.scores
FROM duplicate_rows d
JOIN prediction_rows p ON p.batch_no = d.batch_no AND p.row = d.first_row
JOIN batches b ON b.no = d.batch_no
JOIN model_targets t ON t.model_no = b.model_no AND t.target = p.target
"""

_ROW_ERRORS = """
CREATE VIEW row_errors AS
SELECT b.id AS batch_id, e.row, COALESCE(e.external_id, CAST(e.row AS TEXT)) AS external_id, e.code, e.message
FROM error_rows e
JOIN batches b ON b.no = e.batch_no
UNION ALL
SELECT b.id, d.row, COALESCE(d.external_id, CAST(d.row AS TEXT)), e.code, e.message
FROM duplicate_rows d
JOIN error_rows e ON e.batch_no = d.batch_no AND e.row = d.first_row
JOIN batches b ON b.no = d.batch_no
"""


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("repeats", sa.String(length=64), nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("splits", sa.JSON(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=True),
        sa.Column("dropped", sa.JSON(), nullable=True),
        sa.Column("label_schema", sa.JSON(), nullable=True),
        sa.Column("files", sa.JSON(), nullable=True),
        sa.Column("fingerprint", sa.String(length=80), nullable=True),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=40), nullable=True),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("next_look_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_datasets")),
        sa.UniqueConstraint("id", name=op.f("uq_datasets_id")),
    )
    op.create_index(
        "ix_datasets_name_version",
        "datasets",
        ["name", "version"],
        unique=True,
        sqlite_where=sa.text("repeats IS NULL"),
        postgresql_where=sa.text("repeats IS NULL"),
    )
    op.create_index("ix_datasets_state", "datasets", ["state"], unique=False)
    op.create_table(
        "duplicate_rows",
        sa.Column(
            "batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("first_row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("batch_no", "row", name=op.f("pk_duplicate_rows")),
    )
    op.create_index("ix_duplicate_rows_first_row", "duplicate_rows", ["batch_no", "first_row"], unique=False)
    op.create_table(
        "error_rows",
        sa.Column(
            "batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("batch_no", "row", name=op.f("pk_error_rows")),
    )
    op.create_table(
        "events",
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=True),
        sa.Column("chunk", sa.Integer(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_job_id"), "events", ["job_id"], unique=False)
    op.create_table(
        "locks",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=True),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_locks")),
    )
    op.create_table(
        "models",
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), server_default="ready", nullable=False),
        sa.Column("promoted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("method", sa.String(length=20), nullable=False),
        sa.Column("remote_model", sa.String(length=200), nullable=True),
        sa.Column("label_schema", sa.JSON(), nullable=True),
        sa.Column("thresholds", sa.JSON(), nullable=True),
        sa.Column("training_id", sa.String(length=64), nullable=True),
        sa.Column("dataset_id", sa.String(length=64), nullable=True),
        sa.Column("dataset_fingerprint", sa.String(length=80), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_models")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_models_name_version")),
    )
    op.create_table(
        "prediction_rows",
        sa.Column(
            "batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("target", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("labels", sa.Text(), nullable=True),
        sa.Column("score", sa.REAL(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("batch_no", "row", "target", name=op.f("pk_prediction_rows")),
    )
    op.create_table(
        "batches",
        sa.Column("model_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_ref", sa.String(length=220), nullable=False),
        sa.Column("mode", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.String(length=8), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("content_digest", sa.String(length=80), nullable=True),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("duplicates", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_batches_model_no_models")),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_batches")),
        sa.UniqueConstraint("id", name=op.f("uq_batches_id")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_batches_idempotency_key")),
    )
    op.create_index("ix_batches_state", "batches", ["state"], unique=False)
    op.create_table(
        "evaluations",
        sa.Column("model_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_ref", sa.String(length=220), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("dataset_ref", sa.String(length=220), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=True),
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=40), nullable=True),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("next_look_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_evaluations_model_no_models")),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_evaluations")),
        sa.UniqueConstraint("id", name=op.f("uq_evaluations_id")),
    )
    op.create_index("ix_evaluations_state", "evaluations", ["state"], unique=False)
    op.create_table(
        "model_targets",
        sa.Column("model_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("target", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_model_targets_model_no_models")),
        sa.PrimaryKeyConstraint("model_no", "target", name=op.f("pk_model_targets")),
    )
    op.create_table(
        "trainings",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("method", sa.String(length=20), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("max_cost", sa.Double(), nullable=True),
        sa.Column("approved", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("remote_files", sa.JSON(), nullable=True),
        sa.Column("remote_job", sa.String(length=100), nullable=True),
        sa.Column("remote_status", sa.String(length=40), nullable=True),
        sa.Column("remote_model", sa.String(length=200), nullable=True),
        sa.Column("estimate", sa.JSON(), nullable=True),
        sa.Column("cost", sa.JSON(), nullable=True),
        sa.Column("checkpoints", sa.JSON(), nullable=True),
        sa.Column("model_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=40), nullable=True),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("next_look_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["model_no"], ["models.no"], name=op.f("fk_trainings_model_no_models")),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_trainings")),
        sa.UniqueConstraint("id", name=op.f("uq_trainings_id")),
    )
    op.create_index("ix_trainings_state", "trainings", ["state"], unique=False)
    op.create_table(
        "chunk_inputs",
        sa.Column("batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["batch_no"], ["batches.no"], name=op.f("fk_chunk_inputs_batch_no_batches")),
        sa.PrimaryKeyConstraint("batch_no", "number", name=op.f("pk_chunk_inputs")),
    )
    op.create_table(
        "chunks",
        sa.Column("batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("first_row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("texts", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("labelled", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False),
        sa.Column(
            "abstained", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False
        ),
        sa.Column("failed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False),
        sa.Column("requests", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["batch_no"], ["batches.no"], name=op.f("fk_chunks_batch_no_batches")),
        sa.PrimaryKeyConstraint("batch_no", "number", name=op.f("pk_chunks")),
    )
    op.create_index(
        "ix_chunks_open",
        "chunks",
        ["batch_no", "state", "number"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'claimed')"),
        postgresql_where=sa.text("state IN ('pending', 'claimed')"),
    )
    op.execute(_PREDICTIONS)
    op.execute(_ROW_ERRORS)


def downgrade() -> None:
    op.execute("DROP VIEW row_errors")
    op.execute("DROP VIEW predictions")
    op.drop_index(
        "ix_chunks_open",
        table_name="chunks",
        sqlite_where=sa.text("state IN ('pending', 'claimed')"),
        postgresql_where=sa.text("state IN ('pending', 'claimed')"),
    )
    op.drop_table("chunks")
    op.drop_table("chunk_inputs")
    op.drop_index("ix_trainings_state", table_name="trainings")
    op.drop_table("trainings")
    op.drop_table("model_targets")
    op.drop_index("ix_evaluations_state", table_name="evaluations")
    op.drop_table("evaluations")
    op.drop_index("ix_batches_state", table_name="batches")
    op.drop_table("batches")
    op.drop_table("prediction_rows")
    op.drop_table("models")
    op.drop_table("locks")
    op.drop_index(op.f("ix_events_job_id"), table_name="events")
    op.drop_table("events")
    op.drop_table("error_rows")
    op.drop_index("ix_duplicate_rows_first_row", table_name="duplicate_rows")
    op.drop_table("duplicate_rows")
    op.drop_index("ix_datasets_state", table_name="datasets")
    op.drop_index(
        "ix_datasets_name_version",
        table_name="datasets",
        sqlite_where=sa.text("repeats IS NULL"),
        postgresql_where=sa.text("repeats IS NULL"),
    )
    op.drop_table("datasets")
