"""Reading several inputs as one stream of rows, or of blocks of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.columns import FIRST_ROWS, SeenColumns, clear_names, places_of_columns
from labelmill.core.readers.csv_rows import CsvReader
from labelmill.core.readers.detection import detect_sources
from labelmill.core.readers.files import Input, Source, open_bytes
from labelmill.core.readers.jsonl import read_jsonl
from labelmill.core.readers.parquet import open_parquet, parquet_columns, read_parquet
from labelmill.core.readers.unreadable import Counting, naming_what_is_read


class Row(NamedTuple):
    """One row and where it stands. `line` counts from 1; in Parquet it is the row's number."""

    file: str
    line: int
    values: dict[str, Any]


def read_rows(
    inputs: Iterable[Input | Source], *, columns: Sequence[str] | None, on_bad_row: OnBadRow
) -> Iterator[Row]:
    """Every row of `inputs`, in order. Rows that cannot be read go to `on_bad_row`, which may raise.

    `columns` must be there: in the header, or in one of the first thousand rows of JSONL, each once. Rows of CSV and
    Parquet have these alone; None takes all that have a name of their own. Raises InvalidInput for a file that cannot
    be read, a missing column (naming those there are), and when there is no row.
    """
    names = []
    empty = True
    wanted = None if columns is None else list(dict.fromkeys(columns))
    for given in inputs:
        source = as_source(given, wanted or ())
        names.append(source.name)
        bad = Counting(on_bad_row)
        with naming_what_is_read(source.name, bad):
            for line, values in _READERS[source.format.kind](source, wanted, bad):
                empty = False
                yield Row(source.name, line, values)
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows")


def as_source(given: Input | Source, columns: Sequence[str]) -> Source:
    """An input whose format is known, or is now found out."""
    return given if isinstance(given, Source) else detect_sources([given], columns=columns)[0]


Rows = Iterator[tuple[int, dict[str, Any]]]


def _read_jsonl(source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
    seen = SeenColumns(source.name, columns or ())
    with open_bytes(source) as stream:
        for line, values in read_jsonl(stream, source.name, on_bad_row):
            if not seen.is_settled:
                seen.add(values)
            yield line, values
    seen.finish()


def _read_csv(source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
    with open_bytes(source) as stream:
        reader = CsvReader(stream, source.name, source.format, on_bad_row)
        if not reader.columns:
            return
        names = clear_names(reader.columns) if columns is None else columns
        places = list(zip(names, places_of_columns(source.name, reader.columns, names), strict=True))
        for line, cells in reader.rows():
            yield line, {name: cells[place] if place < len(cells) else "" for name, place in places}


def _read_parquet(source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
    del on_bad_row  # who reads a value says what is wrong with it
    with open_parquet(source) as file:
        there = parquet_columns(file)
        names = clear_names(there) if columns is None else columns
        columns_of_file = [there[place] for place in places_of_columns(source.name, there, names)]
        line = 0
        for batch in read_parquet(file, source.name, columns_of_file):
            for line, cells in enumerate(zip(*batch, strict=True), start=line + 1):  # noqa: B020 - it counts on
                yield line, dict(zip(names, cells, strict=True))


_READERS = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}


def first_columns(source: Source) -> list[str]:
    """The columns of a file: its header's, or those of the first thousand rows of JSONL. Raises InvalidInput when there
    is no row that can be read."""
    if source.format.kind == "parquet":
        with open_parquet(source) as file:
            if not file.metadata.num_rows:
                raise InvalidInput(f"{source.name} holds no rows")
            return parquet_columns(file)
    problems: list[BadRow] = []
    rows = read_rows([source], columns=None, on_bad_row=problems.append)
    first = list(islice(rows, FIRST_ROWS if source.format.kind == "jsonl" else 1))
    if not first:
        bad = problems[0]
        remedy = f"; {bad.remedy}" if bad.remedy else ""
        raise InvalidInput(
            f"no row of {source.name} can be read; the first problem is at line {bad.line}: {bad.reason}{remedy}"
        )
    if source.format.kind == "csv":
        with open_bytes(source) as stream:
            return CsvReader(stream, source.name, source.format, problems.append).columns
    return list(dict.fromkeys(name for row in first for name in row.values))
