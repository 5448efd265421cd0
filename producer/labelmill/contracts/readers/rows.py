"""Reading several inputs as one stream of rows, or of blocks of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.readers.bad_rows import BadRow, OnBadRow, kind_of_value, storable, value_as_text
from labelmill.contracts.readers.csv_rows import read_csv
from labelmill.contracts.readers.files import Input, display_name, format_of, open_bytes
from labelmill.contracts.readers.jsonl import numbered_lines, read_jsonl, read_jsonl_line
from labelmill.contracts.readers.parquet import open_parquet, parquet_columns, read_parquet

Block = list[tuple[str | None, str | None]]


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
        bad = _Counting(on_bad_row)
        checked = columns is None
        for line, values in _read_one(source, name, columns, bad):
            if not checked:
                check_columns(name, values, columns or ())
                checked = True
            empty = False
            yield Row(name, line, values)
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows")


class _Counting:
    def __init__(self, on_bad_row: OnBadRow) -> None:
        self._on_bad_row = on_bad_row
        self.count = 0

    def __call__(self, bad: BadRow) -> None:
        self.count += 1
        self._on_bad_row(bad)


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


def check_columns(name: str, there: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise InvalidInput, naming the columns there are, unless all `wanted` ones are among them."""
    have = list(there)
    for column in wanted:
        if column not in have:
            raise InvalidInput(f"{name} has no column {column!r}; it has {', '.join(map(repr, have[:30]))}")


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


def read_text_blocks(
    inputs: Iterable[Input], text_column: str, id_column: str | None, *, block_rows: int = 4096, on_bad_row: OnBadRow
) -> Iterator[Block]:
    """Lists of `(id, text)` of at most `block_rows` rows, in input order; ids are None without an `id_column`.

    Numbers become text, a missing text is "". Raises as `read_rows` does.
    """
    columns = [text_column] if id_column is None else [text_column, id_column]
    names = []
    empty = True
    for source in inputs:
        names.append(display_name(source))
        bad = _Counting(on_bad_row)
        if isinstance(source, Path) and format_of(source) != "jsonl":
            blocks = _blocks_of_rows(source, columns, block_rows, bad)
        else:
            blocks = _blocks_of_jsonl(source, columns, block_rows, bad)
        for block in blocks:
            empty = False
            yield block
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows")


def _blocks_of_jsonl(source: Input, columns: list[str], block_rows: int, on_bad_row: OnBadRow) -> Iterator[Block]:
    # The hot path: everything that is not a plain string is left to `_pair`.
    name, loads, text_column = display_name(source), orjson.loads, columns[0]
    id_column = columns[1] if len(columns) > 1 else None
    block: Block = []
    first = True
    with open_bytes(source) as stream:
        for number, line in numbered_lines(stream):
            try:
                values = loads(line)
                if first and type(values) is dict:
                    check_columns(name, values, columns)
                    first = False
                text = values[text_column]
                key = None if id_column is None else values[id_column]
                plain = type(text) is str and (key is None or type(key) is str)
            except (ValueError, TypeError, KeyError):
                plain = False
            if plain:
                block.append((key, text))
            elif pair := _careful_pair(line, number, name, columns, on_bad_row):
                block.append(pair)
            if len(block) >= block_rows:
                yield block
                block = []
    if block:
        yield block


def _careful_pair(
    line: bytes, number: int, name: str, columns: list[str], on_bad_row: OnBadRow
) -> tuple[str | None, str | None] | None:
    for _, values in read_jsonl_line(line, number, name, on_bad_row):
        try:
            return _pair(values, columns)
        except _NoText as error:
            on_bad_row(BadRow(name, number, str(error)))
    return None


def _blocks_of_rows(source: Path, columns: list[str], block_rows: int, on_bad_row: OnBadRow) -> Iterator[Block]:
    block: Block = []
    for row in read_rows([source], columns=columns, on_bad_row=on_bad_row):
        try:
            block.append(_pair(row.values, columns))
        except _NoText as error:
            on_bad_row(BadRow(row.file, row.line, str(error)))
        if len(block) >= block_rows:
            yield block
            block = []
    if block:
        yield block


class _NoText(ValueError):
    """A cell that cannot be a text or an id."""


def _pair(values: dict[str, Any], columns: list[str]) -> tuple[str | None, str | None]:
    found: list[str] = []
    for column in columns:
        text = value_as_text(values.get(column))
        if text is None:
            raise _NoText(f"{column!r} is {kind_of_value(values[column])}, not a text")
        if not storable(text):
            raise _NoText(f"{column!r} is not UTF-8")
        found.append(text)
    return (found[1] or None if len(found) > 1 else None), found[0]
