"""Writing result rows as JSONL, CSV or Parquet, to a file that appears whole or not at all."""

from __future__ import annotations

import csv
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from labelmill.contracts.control_characters import visible_json
from labelmill.contracts.errors import InvalidInput, LabelmillError
from labelmill.contracts.new_files import is_same_file, replacing
from labelmill.contracts.readers import Input
from labelmill.contracts.readers.bad_rows import value_as_text
from labelmill.results.columns import ResultColumns

FORMATS = (".jsonl", ".csv", ".parquet")
_GROUP = 10_000
_NO_PYARROW = 'Parquet needs pyarrow: pip install "labelmill[parquet]"'
# Where a formula begins in a spreadsheet: at a value's start or behind what may separate cells, spaces and quotes not
# counted. A comma is this file's own separator: what stands behind one is quoted, and may be a number of a list.
_SIGN = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r]")
_AT_START = re.compile('(?=[\t\r])|[ "]*(?=[=+\\-@\uff1d\uff0b\uff0d\uff20])')
_BEHIND_SEPARATOR = re.compile('[;|\t\r\n][ "]*(?=[=+\\-@\uff1d\uff0b\uff0d\uff20])')
_BEHIND_COMMA = re.compile(',"*(?=[=@\uff1d\uff20])')
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


class CannotWrite(LabelmillError):
    """The output file cannot be written."""

    code = "cannot_write"


def check_output(output: Path, sources: Iterable[Input] = ()) -> None:
    """Raise InvalidInput for a file that results cannot be written to, as far as can be told beforehand, and for one of
    the `sources`, which would be lost."""
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise InvalidInput(f"{output}: results are written as {', '.join(FORMATS)}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise InvalidInput(_NO_PYARROW)
    if output.is_dir():
        raise InvalidInput(f"{output} is a folder; name a file in it")
    if not output.parent.is_dir():
        raise InvalidInput(f"{output} cannot be written: there is no folder {output.parent}")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise InvalidInput(f"{output} cannot be written: the folder {output.parent} is closed to you")
    if any(is_same_file(output, source) for source in sources):
        raise InvalidInput(f"{output} is the source itself: write the results to another file")


def write_results(
    blocks: Iterable[bytes],
    targets: list[str],
    output: Path | None,
    keep: Sequence[str] = (),
    *,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write rows, blocks of lines of JSON, to `output` or to stdout. Returns how many.

    `keep`: the columns in their `keep`, which follow the others in CSV and Parquet.

    Raises InvalidInput, CannotWrite.
    """
    rows = 0

    def counted() -> Iterator[bytes]:
        nonlocal rows
        for lines in blocks:
            yield lines
            count = lines.count(b"\n")
            rows += count
            on_progress(count)

    if output is None:
        _write_jsonl(counted(), _TerminalLines(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer)
        return rows
    check_output(output)
    suffix = output.suffix.lower()
    try:
        with replacing(output) as stream:
            if suffix == ".parquet":
                _write_parquet(_documents(counted()), targets, keep, stream)
            elif suffix == ".jsonl":
                _write_jsonl(counted(), stream)
            else:
                _write_csv(_documents(counted()), targets, keep, stream)
    except OSError as error:
        raise CannotWrite(f"{output} cannot be written: {error.strerror or error}") from error
    return rows


def _documents(blocks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    return (orjson.loads(line) for lines in blocks for line in lines.splitlines())


class _TerminalLines:
    """Lines of JSON for a terminal: they say the same, without characters that it would obey."""

    def __init__(self, terminal: BinaryIO) -> None:
        self._terminal = terminal
        self.flush = terminal.flush

    def write(self, lines: bytes) -> int:
        return self._terminal.write(visible_json(lines.decode()).encode())


def _write_jsonl(blocks: Iterable[bytes], stream: BinaryIO | _TerminalLines) -> None:
    for lines in blocks:
        stream.write(lines)
        stream.flush()  # who follows a batch through a pipe sees rows as they come


def flat(row: dict[str, Any], columns: ResultColumns) -> dict[str, Any]:
    """One row as columns: `row`, `id`, `text`, then `TARGET`, `TARGET_score`, `TARGET_scores`, the error's, and what is
    kept."""
    values = {"row": row["row"], "id": row["id"], "text": row["text"]}
    for target, name in columns.targets.items():
        found = row["predictions"].get(target, {})
        labels = found.get("labels")
        values[name] = orjson.dumps(labels).decode() if labels is not None else found.get("label")
        values[f"{name}_score"] = found.get("score")
        values[f"{name}_scores"] = orjson.dumps(found["scores"]).decode() if found else None
    error = row["error"] or {}
    values |= {"error_code": error.get("code"), "error_message": error.get("message")}
    kept = row.get("keep", {})
    return values | {name: _cell(kept.get(column)) for column, name in columns.kept.items()}


def _cell(value: Any) -> str | None:
    """A kept value as text: a column of a JSONL file may hold whatever it likes."""
    if value is None:
        return None
    text = value_as_text(value)
    return orjson.dumps(value).decode() if text is None else text


def _write_csv(rows: Iterable[dict[str, Any]], targets: list[str], keep: Sequence[str], stream: BinaryIO) -> None:
    columns = ResultColumns(targets, keep)
    empty = {"row": 0, "id": "", "text": "", "predictions": {}, "error": None}
    lines = csv.DictWriter(_Utf8(stream), fieldnames=list(flat(empty, columns)), lineterminator="\r\n")
    lines.writerow({name: _harmless(name) for name in lines.fieldnames})
    for row in rows:
        lines.writerow({name: _harmless(value) for name, value in flat(row, columns).items()})


def _harmless(value: Any) -> Any:
    """A spreadsheet runs cells that begin like a formula; an apostrophe makes them text. Numbers stay as they are.

    Many spreadsheets split lines at semicolons or tabs, whatever quotes say: behind each that stands in a value, and
    behind a line's end, a cell of theirs begins.
    """
    if not isinstance(value, str) or not _SIGN.search(value) or _NUMBER.fullmatch(value):
        return value
    for pattern in (_BEHIND_SEPARATOR, _BEHIND_COMMA):
        if pattern.search(value):  # `sub` takes four times as long to find nothing
            value = pattern.sub(r"\g<0>'", value)
    start = _AT_START.match(value)
    return f"{value[: start.end()]}'{value[start.end() :]}" if start else value


class _Utf8:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # told of both characters, the csv module quotes cells that hold either: a bare CR would begin a line of its own
        return self._stream.write((text.removesuffix("\r\n") + "\n").encode("utf-8"))


def _write_parquet(rows: Iterable[dict[str, Any]], targets: list[str], keep: Sequence[str], stream: BinaryIO) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(_NO_PYARROW) from error
    columns = ResultColumns(targets, keep)
    fields = [("row", pa.int64()), ("id", pa.string()), ("text", pa.string())]
    for name in columns.targets.values():
        fields += [(name, pa.string()), (f"{name}_score", pa.float64()), (f"{name}_scores", pa.string())]
    fields += [("error_code", pa.string()), ("error_message", pa.string())]
    fields += [(name, pa.string()) for name in columns.kept.values()]
    schema = pa.schema(fields)
    with pq.ParquetWriter(stream, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist([flat(row, columns) for row in group], schema=schema))


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while group := list(itertools.islice(iterator, _GROUP)):
        yield group
