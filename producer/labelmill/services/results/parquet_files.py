"""Results as Parquet, a group of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from labelmill.services.results.arrow_batches import arrow_batches, arrow_schema, require_pyarrow
from labelmill.services.results.tables import ResultTable

if TYPE_CHECKING:
    from labelmill.services.results.kept_columns import ReadKept
    from labelmill.services.results.lines import ChunkResults


def write_parquet(
    chunks: Iterable[ChunkResults], table: ResultTable, stream: BinaryIO, read_kept: ReadKept | None = None
) -> int:
    """Write results. `read_kept` gives the kept columns of the table, if it has some. Returns the number of rows.
    Raises InvalidInput without pyarrow."""
    require_pyarrow()
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    rows = 0
    with pq.ParquetWriter(stream, arrow_schema(table), use_dictionary=_texts_of(table)) as writer:
        for batch in arrow_batches(chunks, table, read_kept=read_kept):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _texts_of(table: ResultTable) -> list[str]:
    """The columns that a dictionary makes smaller. Numbers are nearly all different: with one they take a third more
    room and twice the time."""
    return [
        name if kind == "text" else f"{name}.key_value.key"
        for name, kind in table.columns
        if kind in ("text", "scores")
    ]
