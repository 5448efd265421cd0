"""Results as CSV that is safe to open in spreadsheets."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.services.results.tables import ResultTable

_NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t"}
_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20"  #: With which a formula begins; the latter four are wide ones.
_SIGN = re.compile(f"[{_SIGNS}\t\r]")
_AT_START = re.compile(f'(?=[\t\r])|[ "]*(?=[{_SIGNS}])')
_SEPARATORS = ",;|\t"  #: Spreadsheets may split lines at these, whatever the file's own delimiter.
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """How CSV is written. `protect`: no cell begins like a formula."""

    delimiter: str = ","
    bom: bool = False
    protect: bool = True


def parse_delimiter(written: str) -> str:
    """The delimiter as a person writes it: one character, or `tab`. Raises InvalidInput."""
    delimiter = _NAMED_DELIMITERS.get(written, written)
    is_sign = len(delimiter) == 1 and not delimiter.isalnum() and (delimiter.isprintable() or delimiter == "\t")
    if not is_sign or delimiter in "\"' .=+-@_":
        raise InvalidInput(f"{named('output_delimiter')} is one sign such as , ; | or tab, not {shown(written)}")
    return delimiter


def write_csv(rows: Iterable[dict[str, Any]], table: ResultTable, options: CsvOptions, stream: BinaryIO) -> None:
    """Write rows of results under a heading."""
    protected = formula_guard(options.delimiter) if options.protect else _unchanged
    lines = csv.writer(_Utf8(stream), delimiter=options.delimiter, lineterminator="\r\n")
    if options.bom:
        stream.write(codecs.BOM_UTF8)
    lines.writerow([protected(name) for name, _ in table.columns])
    for row in rows:
        lines.writerow(
            [protected(cell if type(cell) is not dict else orjson.dumps(cell).decode()) for cell in table.cells(row)]
        )


def formula_guard(delimiter: str) -> Callable[[Any], Any]:
    """What makes a value harmless. A spreadsheet runs cells that begin like a formula; an apostrophe makes them text.
    Numbers stay as they are.

    Many spreadsheets split lines at other separators than the file's, whatever quotes say: behind each that stands in
    a value, and behind a line's end, a cell of theirs begins. What stands behind the file's own delimiter is quoted,
    and may be a number of a list: there only `=` and `@` count. Spaces and quotes before a sign are not counted.
    """
    others = re.escape(_SEPARATORS.replace(delimiter, ""))
    behind_other = re.compile(f'[{others}\r\n][ "]*(?=[{_SIGNS}])')
    behind_own = re.compile(f'{re.escape(delimiter)}"*(?=[=@\uff1d\uff20])')

    def protected(value: Any) -> Any:
        if not isinstance(value, str) or not _SIGN.search(value) or _NUMBER.fullmatch(value):
            return value
        for pattern in (behind_other, behind_own):
            if pattern.search(value):  # `sub` takes four times as long to find nothing
                value = pattern.sub(r"\g<0>'", value)
        start = _AT_START.match(value)
        return f"{value[: start.end()]}'{value[start.end() :]}" if start else value

    return protected


def _unchanged(value: Any) -> Any:
    return value


class _Utf8:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # with both characters the csv module quotes cells that hold either: a bare CR would begin a new line
        return self._stream.write((text.removesuffix("\r\n") + "\n").encode("utf-8"))
