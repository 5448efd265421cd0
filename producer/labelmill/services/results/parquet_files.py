"""Results as Parquet, a group of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any, BinaryIO

from labelmill.contracts.errors import InvalidInput
from labelmill.services.results.tables import ResultTable

_GROUP_ROWS = 10_000
_GROUP_SCORES = 500_000  #: Of a group: rows with a thousand scores each make smaller ones.


def require_pyarrow() -> None:
    """Raise InvalidInput where Parquet cannot be written."""
    if find_spec("pyarrow") is None:
        raise InvalidInput('Parquet needs pyarrow: pip install "labelmill[parquet]"')


def write_parquet(rows: Iterable[dict[str, Any]], table: ResultTable, stream: BinaryIO) -> None:
    """Write rows of results; `TARGET_scores` is `map<string, float>`. Raises InvalidInput without pyarrow."""
    require_pyarrow()
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = {
        "row": pa.int64(),
        "text": pa.string(),
        "score": pa.float64(),
        "scores": pa.map_(pa.string(), pa.float32()),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns])
    with pq.ParquetWriter(stream, schema) as writer:
        for group in _groups(map(table.cells, rows)):
            arrays = [
                _score_maps(pa, cells) if kind == "scores" else pa.array(cells, types[kind])
                for (_, kind), cells in zip(table.columns, zip(*group, strict=True), strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _groups(rows: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    group: list[list[Any]] = []
    scores = 0
    for cells in rows:
        group.append(cells)
        scores += sum(len(cell) for cell in cells if type(cell) is dict)
        if len(group) >= _GROUP_ROWS or scores >= _GROUP_SCORES:
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
