"""Results as record batches of Arrow, some thousand rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from labelmill.contracts.errors import InvalidInput
from labelmill.services.results.tables import ResultTable

if TYPE_CHECKING:
    import pyarrow as pa

    from labelmill.services.results.kept_columns import ReadKept
    from labelmill.services.results.lines import ChunkResults

BATCH_ROWS = 10_000
_BATCH_SCORES = 500_000  #: Of a batch: rows with a thousand scores each make smaller ones.


def require_pyarrow(what: str = "Parquet") -> None:
    """Raise InvalidInput where pyarrow is not installed. `what`: it is needed for this."""
    if find_spec("pyarrow") is None:
        raise InvalidInput(f'{what} needs pyarrow: pip install "labelmill[parquet]"')


def arrow_schema(table: ResultTable) -> pa.Schema:
    """The columns of the batches; `TARGET_scores` is `map<string, float>`."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    types = {
        "row": pa.int64(),
        "text": pa.string(),
        "score": pa.float64(),
        "scores": pa.map_(pa.string(), pa.float32()),
    }
    return pa.schema([(name, types[kind]) for name, kind in table.columns])


def arrow_batches(
    chunks: Iterable[ChunkResults],
    table: ResultTable,
    batch_rows: int = BATCH_ROWS,
    *,
    read_kept: ReadKept | None = None,
) -> Iterator[pa.RecordBatch]:
    """Results as batches of `batch_rows`, of fewer where rows have many scores; the last one holds the rest.
    `read_kept` gives the kept columns of the table, if it has some."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    from labelmill.services.results.arrow_columns import record_batch  # noqa: PLC0415 - NumPy, for those who read rows

    schema = arrow_schema(table)
    parts: list[pa.RecordBatch] = []
    count = 0
    for chunk in chunks:
        rows = chunk.rows()
        at_most = min(batch_rows, -(-_BATCH_SCORES // max(chunk.scores_a_row(), 1)))
        while len(rows):
            room = max(at_most - count, 1)
            part, rows = rows[:room], rows[room:]
            parts.append(record_batch(chunk, part, table, schema, read_kept))
            count += len(part)
            if count >= at_most:
                yield pa.concat_batches(parts)
                parts, count = [], 0
    if parts:
        yield pa.concat_batches(parts)
