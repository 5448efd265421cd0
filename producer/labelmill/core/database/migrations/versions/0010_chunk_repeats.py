"""How often a chunk's rows are repeated: with the chunk, instead of by an index over all repeats."""

from itertools import groupby
from operator import itemgetter

import sqlalchemy as sa
from alembic import op

from labelmill.core.chunks.codec import encode_repeats

revision = "0010"
down_revision = "0009"

_COUNTED = """SELECT c.batch_no, c.number, d.first_row, count(*)
FROM chunks c JOIN duplicate_rows d
ON d.batch_no = c.batch_no AND d.first_row >= c.first_row AND d.first_row < c.first_row + c.rows
WHERE c.batch_no = :no GROUP BY c.batch_no, c.number, d.first_row ORDER BY c.number, d.first_row"""


def upgrade() -> None:
    repeats = op.create_table(
        "chunk_repeats",
        sa.Column("batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["batch_no"], ["batches.no"], name=op.f("fk_chunk_repeats_batch_no_batches")),
        sa.PrimaryKeyConstraint("batch_no", "number", name=op.f("pk_chunk_repeats")),
    )
    connection = op.get_bind()
    # those still being submitted are not complete: the submission writes them at its end
    batches = connection.execute(sa.text("SELECT no FROM batches WHERE duplicates > 0 AND state <> 'submitting'"))
    for (batch_no,) in batches.all():
        counted = connection.execute(sa.text(_COUNTED), {"no": batch_no})
        for number, rows in groupby(counted, key=itemgetter(1)):
            found = list(rows)
            data = encode_repeats([row[2] for row in found], [row[3] for row in found])
            connection.execute(sa.insert(repeats).values(batch_no=batch_no, number=number, data=data))
    op.drop_index("ix_duplicate_rows_first_row", table_name="duplicate_rows")


def downgrade() -> None:
    op.create_index("ix_duplicate_rows_first_row", "duplicate_rows", ["batch_no", "first_row"], unique=False)
    op.drop_table("chunk_repeats")
