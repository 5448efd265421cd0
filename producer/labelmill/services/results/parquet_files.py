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
    with pq.ParquetWriter(stream, arrow_schema(table)) as writer:
        for batch in arrow_batches(chunks, table, read_kept=read_kept):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows
