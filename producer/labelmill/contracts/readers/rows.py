"""Reading several inputs as one stream of rows, or of blocks of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.near_matches import did_you_mean
from labelmill.contracts.readers.bad_rows import BadRow, OnBadRow
from labelmill.contracts.readers.csv_rows import read_csv
from labelmill.contracts.readers.files import Input, display_name, format_of, open_bytes
from labelmill.contracts.readers.jsonl import read_jsonl
from labelmill.contracts.readers.parquet import open_parquet, parquet_columns, read_parquet
from labelmill.contracts.readers.unreadable import Counting, naming_what_is_read

_USUAL_TEXT = "text"  #: The column of the texts where none is named.


class Row(NamedTuple):
    """One row and where it stands. `line` counts from 1; in Parquet it is the row's number."""

    file: str
    line: int
    values: dict[str, Any]


def read_rows(inputs: Iterable[Input], *, columns: Sequence[str] | None, on_bad_row: OnBadRow) -> Iterator[Row]:
    """Every row of `inputs`, in order. Rows that cannot be read go to `on_bad_row`, which may raise.

    `columns` are checked on each file's first row; None takes all. Later rows may lack some of them. Raises
    InvalidInput for a file that cannot be read, a missing column (naming those there are), and when there is no row.
    """
    names = []
    empty = True
    for source in inputs:
        name = display_name(source)
        names.append(name)
        bad = Counting(on_bad_row)
        checked = columns is None
        with naming_what_is_read(name, bad):
            for line, values in _read_one(source, name, columns, bad):
                if not checked:
                    check_columns(name, values, columns or ())
                    checked = True
                empty = False
                yield Row(name, line, values)
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows")


def _read_one(
    source: Input, name: str, columns: Sequence[str] | None, on_bad_row: OnBadRow
) -> Iterator[tuple[int, dict[str, Any]]]:
    kind = format_of(source) if isinstance(source, Path) else "jsonl"
    if kind == "parquet" and isinstance(source, Path):
        if columns is not None:
            check_columns(name, parquet_columns(source), columns)
        line = 0
        for batch in read_parquet(source, None if columns is None else list(dict.fromkeys(columns))):
            for line, cells in enumerate(zip(*batch.values(), strict=True), start=line + 1):  # noqa: B020 - it counts on
                yield line, dict(zip(batch, cells, strict=True))
        return
    with open_bytes(source) as stream:
        yield from (read_csv if kind == "csv" else read_jsonl)(stream, name, on_bad_row)


def check_columns(name: str, there: Iterable[str], wanted: Iterable[str], *, are_fixed: bool = False) -> None:
    """Raise InvalidInput, naming the columns there are, unless all `wanted` ones are among them. `are_fixed`: no option
    names other ones."""
    have = list(there)
    for column in wanted:
        if column not in have:
            near = did_you_mean(column, have, show=shown)
            remedy = "; --text names the column of the texts" if column == _USUAL_TEXT and not are_fixed else ""
            raise InvalidInput(
                f"{name} has no column {shown(column)}; it has {', '.join(map(shown, have[:30]))}{near}{remedy}"
            )


def first_columns(source: Path) -> list[str]:
    """The columns of a file's first readable row. Raises InvalidInput when there is none."""
    if format_of(source) == "parquet":
        with open_parquet(source) as file:
            if not file.metadata.num_rows:
                raise InvalidInput(f"{source.name} holds no rows")
            return list(file.schema_arrow.names)
    problems: list[BadRow] = []
    for row in read_rows([source], columns=None, on_bad_row=problems.append):
        return list(row.values)
    raise InvalidInput(f"{source.name} has no readable row; the first problem is at line {problems[0].line}: "
                       f"{problems[0].reason}")  # fmt: skip
