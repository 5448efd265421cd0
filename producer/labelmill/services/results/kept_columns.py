"""Columns of the input file next to the results of its rows (`keep`).

A batch keeps texts and ids alone. The other columns are read from the source again, which must be where it was and
still hold the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.specs import ClassifySpec, ReadOptions
from labelmill.core.readers import (
    BadRow,
    Input,
    Row,
    check_columns,
    detect_sources,
    first_columns,
    known_sources,
    read_rows,
    texts_of_row,
)
from labelmill.core.readers.bad_rows import value_as_text
from labelmill.core.storage.base import ReadableFile

#: Gives the values of a row's kept columns, by the row's number and text, for rows in input order.
ReadKept = Callable[[int, str], dict[str, Any]]

_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  #: Names of a shell's `<(…)`.


def check_kept_columns(inputs: Iterable[Input], columns: Sequence[str], options: ReadOptions) -> None:
    """Raise InvalidInput unless each input can be read again and has these columns."""
    for file in inputs:
        if not isinstance(file, ReadableFile) or (isinstance(file, Path) and not file.is_file()):
            raise InvalidInput(f"{named('keep')} reads the source again: hand the texts in as a file")
        try:
            (source,) = detect_sources([file], options, columns)
            present = first_columns(source)
        except InvalidInput:
            continue  # reading its texts reports the error
        check_columns(file.name, present, columns)


def keep_columns(blocks: Iterable[bytes], read_kept: ReadKept) -> Iterator[bytes]:
    """The same lines of JSON, each with `"keep": {column: value}`. Raises as `read_kept`."""
    for block in blocks:
        lines = []
        for line in block.splitlines():
            document = orjson.loads(line)
            document["keep"] = read_kept(document["row"], document["text"])
            lines.append(orjson.dumps(document, default=str))
        yield b"\n".join(lines) + b"\n"


def kept_reader(spec: ClassifySpec, columns: Sequence[str], read_again: Callable[[], Sequence[Input]]) -> ReadKept:
    """What reads the columns of a batch's source once more. `read_again` gives the source's files. Raises InvalidInput
    for a source that is gone; what it returns does when the source has changed."""
    if spec.source == "-" or spec.source.startswith((*_PIPES, "<")):
        origin = "rows of a program" if spec.source.startswith("<") else "standard input or a pipe"
        raise InvalidInput(f"{named('keep')} reads the source again, and this batch was read from {origin}")
    rows = enumerate(_rows_of_source(spec, columns, read_again()))

    def read_kept(row: int, text: str) -> dict[str, Any]:
        values = _row(rows, row, spec)
        if not spec.chats and (value_as_text(values.get(spec.text)) or "") != text:
            raise _changed(spec, row)
        return {column: _kept(values.get(column)) for column in columns}

    return read_kept


def _kept(value: Any) -> Any:
    return value_as_text(value) if isinstance(value, bytes) else value


def _rows_of_source(spec: ClassifySpec, columns: Sequence[str], inputs: Sequence[Input]) -> Iterator[Row]:
    """The rows that were submitted, in order."""
    read = [spec.text] if spec.id is None else [spec.text, spec.id]
    again = [file for file in inputs if isinstance(file, ReadableFile)]
    files = known_sources(again, spec.formats, spec.reading)
    if spec.on_bad_row == "fail":
        return read_rows(files, columns=[*read, *columns], on_bad_row=_refuse)
    rows = read_rows(files, columns=[*read, *columns], on_bad_row=lambda _: None)
    return (row for row in rows if not isinstance(texts_of_row(row.values, read), str))


def _row(rows: Iterator[tuple[int, Any]], row_number: int, spec: ClassifySpec) -> dict[str, Any]:
    for number, row in rows:
        if number == row_number:
            return dict(row.values)
    raise _changed(spec, row_number)


def _refuse(bad: BadRow) -> None:
    raise InvalidInput(f"{bad.file}:{bad.line}: {bad.reason}")


def _changed(spec: ClassifySpec, row: int) -> InvalidInput:
    return InvalidInput(
        f"{spec.source} is not what was classified: row {row} has another text; {named('keep')} needs it unchanged"
    )
