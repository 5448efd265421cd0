"""Tables of pandas, Polars, Arrow and Hugging Face's `datasets`, some thousand rows at a time.

A table is recognised by the module of its class, so none of these libraries is imported.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.columns import clear_names, places_of_columns
from labelmill.core.readers.formats.parquet_batches import values_of
from labelmill.core.readers.python_rows.base import ROWS_AT_ONCE, PythonRows, plain_block, plain_value
from labelmill.core.readers.python_rows.iterables import IterableRows
from labelmill.core.readers.text_block import TextBlock, add_row, new_block


class TableRows(PythonRows):
    """A table, whose columns have names."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names of the columns."""

    @abstractmethod
    def batches(self, places: Sequence[int]) -> Iterator[list[list[Any]]]:
        """The values of these columns, some thousand rows at a time."""

    def rows(self, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        present = self.names()
        names = clear_names(present) if columns is None else list(dict.fromkeys(columns))
        for batch in self.batches(places_of_columns(self.name, present, names)):
            for values in zip(*batch, strict=True):
                yield dict(zip(names, values, strict=True))

    def blocks(self, columns: Sequence[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
        number = 1
        for texts, *ids in self.batches(places_of_columns(self.name, self.names(), columns)):
            block = plain_block(texts, ids[0] if ids else None)
            if block is None:
                block = new_block(columns)
                for at, values in enumerate(zip(texts, *ids, strict=True), number):
                    row = dict(zip(columns, map(plain_value, values), strict=False))
                    add_row(block, row, columns, BadRow(self.name, at, ""), on_bad_row)
            number += len(texts)
            yield block


class PandasRows(TableRows):
    """A `pandas.DataFrame`. Missing values, such as NaN, are None."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame)
        self._frame = frame

    def names(self) -> list[str]:
        return list(map(str, self._frame.columns))

    def batches(self, places: Sequence[int]) -> Iterator[list[list[Any]]]:
        for start in range(0, len(self._frame), ROWS_AT_ONCE):
            part = self._frame.iloc[start : start + ROWS_AT_ONCE]
            columns = (part.iloc[:, place] for place in places)
            yield [
                [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
                for column in columns
            ]


class PolarsRows(TableRows):
    """A `polars.DataFrame`."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame)
        self._frame = frame

    def names(self) -> list[str]:
        return list(self._frame.columns)

    def batches(self, places: Sequence[int]) -> Iterator[list[list[Any]]]:
        for part in self._frame.iter_slices(ROWS_AT_ONCE):
            columns = part.get_columns()
            yield [columns[place].to_list() for place in places]


class ArrowRows(TableRows):
    """A table, a batch, a reader of batches or a dataset of `pyarrow`."""

    def __init__(self, table: Any) -> None:
        super().__init__(table)
        self._table = table

    def names(self) -> list[str]:
        return list(self._table.schema.names)

    def batches(self, places: Sequence[int]) -> Iterator[list[list[Any]]]:
        for batch in self._record_batches():
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                part = batch.slice(start, ROWS_AT_ONCE)
                yield [values_of(part.column(place)) for place in places]

    def _record_batches(self) -> Iterable[Any]:
        if hasattr(self._table, "to_batches"):
            return list(self._table.to_batches()) if hasattr(self._table, "nbytes") else self._table.to_batches()
        return [self._table] if hasattr(self._table, "num_rows") else self._table


class HubRows(TableRows):
    """A `datasets.Dataset`. Labels that it stores as numbers are their names."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        self._dataset = dataset

    def names(self) -> list[str]:
        return list(self._dataset.column_names)

    def batches(self, places: Sequence[int]) -> Iterator[list[list[Any]]]:
        present = self.names()
        names = [present[place] for place in places]
        dataset = self._dataset.select_columns(list(dict.fromkeys(names))).with_format(None)
        for batch in dataset.iter(batch_size=ROWS_AT_ONCE):
            yield [_with_names(batch[name], self._dataset.features[name]) for name in names]


def _with_names(values: Any, feature: Any) -> list[Any]:
    """Values of a column of a `datasets.Dataset`, with names of classes for their numbers."""
    inner = getattr(feature, "feature", None)
    if names := getattr(inner, "names", None):
        return [None if each is None else [_name(one, names) for one in each] for each in values]
    if names := getattr(feature, "names", None):
        return [_name(one, names) for one in values]
    return list(values)


def _name(number: int | None, names: Sequence[str]) -> str | None:
    return None if number is None or number < 0 else names[number]


def table_rows(source: object) -> PythonRows | None:
    """The rows of a table, or of one column of Arrow's; None: it is not a table. Raises InvalidInput for one that holds
    no rows yet, or several tables."""
    for kind in type(source).__mro__:
        match (kind.__module__.partition(".")[0], kind.__name__):
            case ("pandas", "DataFrame"):
                return PandasRows(source)
            case ("polars", "DataFrame"):
                return PolarsRows(source)
            case ("polars", "LazyFrame"):
                raise InvalidInput("a LazyFrame has no rows yet: collect() it", field="source")
            case ("pyarrow", _) if hasattr(source, "schema"):
                return ArrowRows(source)
            case ("pyarrow", "Array" | "ChunkedArray"):
                return IterableRows(cell.as_py() for cell in source)  # type: ignore[attr-defined]
            case ("datasets", "Dataset"):
                if source.format["type"] == "custom":  # type: ignore[attr-defined]
                    words = "the transform of a Dataset is not applied here: make its rows with map()"
                    raise InvalidInput(words, field="source")
                return HubRows(source)
            case ("datasets", "DatasetDict" | "IterableDatasetDict"):
                raise InvalidInput(f"a {kind.__name__} holds several splits: hand over one of them", field="source")
    return None
