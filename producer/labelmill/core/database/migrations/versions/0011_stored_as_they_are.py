"""PostgreSQL keeps compressed columns as they are: it tried in vain to compress them once more, for a third of the CPU
that it took for a submission."""

from alembic import op

revision = "0011"
down_revision = "0010"

_COMPRESSED = ("chunk_inputs", "chunk_repeats")


def _store(how: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _COMPRESSED:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE {how}")


def upgrade() -> None:
    _store("EXTERNAL")


def downgrade() -> None:
    _store("EXTENDED")
