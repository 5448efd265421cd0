"""CSV with a header line: quoted cells may hold line breaks and be of any length."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.readers.bad_rows import BadRow, OnBadRow, storable


def read_csv(stream: BinaryIO, name: str, on_bad_row: OnBadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row as a dictionary, with the line it begins on. Commas; or semicolons or tabs if the header has those."""
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _rows(text, name, on_bad_row)
    finally:
        if not text.closed:
            text.detach()  # else the wrapper closes a stream that is not its own


def _rows(text: io.TextIOWrapper, name: str, on_bad_row: OnBadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    head = text.readline()
    delimiter = "," if "," in head else ";" if ";" in head else "\t" if "\t" in head else ","
    # strict: without it a quote that is never closed swallows the rest of the file without a word
    reader = csv.reader(chain([head], text), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InvalidInput(f"the header line of {name} cannot be read: {error}") from error
    if not header:
        return
    if not all(map(storable, header)):
        raise InvalidInput(f"the header line of {name} is not UTF-8")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise InvalidInput(f"{name} has two columns named {twice!r}")
    width = len(header)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            on_bad_row(BadRow(name, line, f"broken CSV: {error}"))
            continue
        if len(cells) == width and all(map(storable, cells)):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:  # a blank line has none
            reason = "not UTF-8" if len(cells) == width else f"{len(cells)} cells where the header has {width}"
            on_bad_row(BadRow(name, line, reason))
