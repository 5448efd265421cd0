"""Results as Parquet, a group of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

from labelmill.services.results.arrow_batches import arrow_batches, arrow_schema, require_pyarrow
from labelmill.services.results.tables import ResultTable


def write_parquet(rows: Iterable[dict[str, Any]], table: ResultTable, stream: BinaryIO) -> None:
    """Write rows of results. Raises InvalidInput without pyarrow."""
    require_pyarrow()
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    with pq.ParquetWriter(stream, arrow_schema(table)) as writer:
        for batch in arrow_batches(rows, table):
            writer.write_batch(batch)
