"""Results as tables of other libraries, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.services.context import ServiceContext
from labelmill.services.results.arrow_batches import BATCH_ROWS, arrow_batches, arrow_schema, require_pyarrow
from labelmill.services.results.rows import ResultsRequest, result_chunks, targets_of
from labelmill.services.results.scores import NONE
from labelmill.services.results.tables import ResultTable

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import polars as pl
    import pyarrow as pa


def result_batches(
    context: ServiceContext, request: ResultsRequest, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The rows as record batches, at constant memory. Raises InvalidInput, without pyarrow too; NotFound."""
    return _Results.of(context, request).batches(batch_rows)


def result_table(context: ServiceContext, request: ResultsRequest) -> pa.Table:
    """All rows in memory. Raises as `result_batches`."""
    results = _Results.of(context, request)
    import pyarrow as pa  # noqa: PLC0415 - an extra

    return pa.Table.from_batches(list(results.batches(BATCH_ROWS)), schema=arrow_schema(results.table))


def pandas_frame(context: ServiceContext, request: ResultsRequest) -> pd.DataFrame:
    """All rows; `TARGET_scores` holds dictionaries. Raises as `result_batches`, and InvalidInput without pandas."""
    _require("pandas")
    frame: pd.DataFrame = result_table(context, request).to_pandas(maps_as_pydicts="strict")
    return frame


def polars_frame(context: ServiceContext, request: ResultsRequest) -> pl.DataFrame:
    """All rows. Raises as `result_batches`, and InvalidInput without Polars."""
    _require("polars")
    import polars as pl  # noqa: PLC0415 - not needed otherwise

    return cast("pl.DataFrame", pl.from_arrow(result_table(context, request)))


def hub_dataset(context: ServiceContext, request: ResultsRequest) -> datasets.Dataset:
    """All rows; `TARGET_scores` holds lists of `label` and `score`, for it knows no maps. Raises as `result_batches`,
    and InvalidInput without datasets."""
    _require("datasets")
    library = import_module("datasets")  # by name: no part of the producer needs it
    dataset: datasets.Dataset = library.Dataset(_without_maps(result_table(context, request)))
    return dataset


def _without_maps(table: pa.Table) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    pair = pa.struct([("label", pa.string()), ("score", pa.float32())])
    for place, column in enumerate(table.schema):
        if pa.types.is_map(column.type):
            lists = [
                pa.ListArray.from_arrays(
                    maps.offsets,
                    pa.StructArray.from_arrays([maps.keys, maps.items], fields=list(pair)),
                    mask=maps.is_null(),
                )
                for maps in table.column(place).chunks
            ]
            table = table.set_column(place, column.name, pa.chunked_array(lists, pa.list_(pair)))
    return table


@dataclass(frozen=True)
class _Results:
    """The rows of a job, and their columns."""

    context: ServiceContext
    request: ResultsRequest
    table: ResultTable

    @classmethod
    def of(cls, context: ServiceContext, request: ResultsRequest) -> _Results:
        require_pyarrow("a table of results")
        targets = targets_of(context, request)
        return cls(context, request, ResultTable(targets, (), with_scores=request.scores != NONE))

    def batches(self, batch_rows: int) -> Iterator[pa.RecordBatch]:
        if batch_rows < 1:
            raise InvalidInput(f"{named('batch_rows')} is 1 or more, not {batch_rows}")
        return arrow_batches(result_chunks(self.context, self.request), self.table, batch_rows)


def _require(library: str) -> None:
    if find_spec(library) is None:
        raise InvalidInput(f"{library} is not installed: pip install {library}")
