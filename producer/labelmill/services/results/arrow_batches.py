"""Results as record batches of Arrow, some thousand rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from labelmill.contracts.errors import InvalidInput
from labelmill.services.results.tables import ResultTable

if TYPE_CHECKING:
    import pyarrow as pa

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
    rows: Iterable[dict[str, Any]], table: ResultTable, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Rows of results as batches of at most `batch_rows`."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    schema = arrow_schema(table)
    for group in _groups(map(table.cells, rows), batch_rows):
        arrays = [
            _score_maps(pa, cells) if kind == "scores" else pa.array(cells, field.type)
            for (_, kind), field, cells in zip(table.columns, schema, zip(*group, strict=True), strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _groups(rows: Iterable[list[Any]], batch_rows: int) -> Iterator[list[list[Any]]]:
    group: list[list[Any]] = []
    scores = 0
    for cells in rows:
        group.append(cells)
        scores += sum(len(cell) for cell in cells if type(cell) is dict)
        if len(group) >= batch_rows or scores >= _BATCH_SCORES:
            yield group
            group, scores = [], 0
    if group:
        yield group


def _score_maps(pa: Any, cells: Sequence[dict[str, float] | None]) -> Any:
    """Scores by label of each row; a row without an answer has none."""
    offsets: list[int | None] = []
    end = 0
    for scores in cells:
        offsets.append(None if scores is None else end)
        end += len(scores or ())
    answered = [scores for scores in cells if scores is not None]
    return pa.MapArray.from_arrays(
        pa.array([*offsets, end], pa.int32()),
        pa.array(list(chain.from_iterable(answered)), pa.string()),
        pa.array(list(chain.from_iterable(scores.values() for scores in answered)), pa.float32()),
    )
