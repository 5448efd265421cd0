"""CSV with a header line: quoted cells may hold line breaks and be of any length."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.readers.bad_rows import BadRow, OnBadRow, storable
from labelmill.contracts.readers.whole_lines import BLOCK_BYTES, MAX_LINE_BYTES, TOO_LONG, whole_lines


def read_csv(stream: BinaryIO, name: str, on_bad_row: OnBadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row as a dictionary, with the line it begins on. Commas; or semicolons or tabs if the header has those."""
    csv.field_size_limit(sys.maxsize)
    source = _BoundedLines(stream)
    lines = chain.from_iterable(source.blocks())
    head = next(lines, "")
    delimiter = "," if "," in head else ";" if ";" in head else "\t" if "\t" in head else ","
    # strict: without it a quote that is never closed swallows the rest of the file without a word
    reader = csv.reader(chain([head], lines), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InvalidInput(f"the header line of {name} cannot be read: {source.reason(error)}") from error
    if not header:
        return
    if not all(map(storable, header)):
        raise InvalidInput(f"the header line of {name} is not UTF-8")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise InvalidInput(f"{name} has two columns named {twice!r}")
    width = len(header)
    while True:
        line = reader.line_num - source.added + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            on_bad_row(BadRow(name, line, source.reason(error)))
            continue
        finally:
            source.row_begins_at = source.read
        if len(cells) == width and all(map(storable, cells)):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:  # a blank line has none
            reason = "not UTF-8" if len(cells) == width else f"{len(cells)} cells where the header has {width}"
            on_bad_row(BadRow(name, line, reason))


class _BoundedLines:
    """The lines of a stream for a strict `csv.reader`. Where a line or a row is too long, the reader is given a line
    that no CSV can hold: its error ends the row, and the next line begins another."""

    _IMPOSSIBLE = '"x"x\n'  # as a line of its own and within quotes

    def __init__(self, stream: BinaryIO) -> None:
        self.read = 0  #: Bytes that were handed out.
        self.row_begins_at = 0  #: What `read` was when the row began, or up to a block less.
        self.added = 0  #: Lines that the stream did not hold.
        self._stream = stream
        self._is_too_long = False

    def blocks(self) -> Iterator[Iterable[str]]:
        for block in whole_lines(self._stream, carriage_returns=True):
            if block is not None and self.read + len(block) - self.row_begins_at > MAX_LINE_BYTES + BLOCK_BYTES:
                self.added += 1
                self._is_too_long = True
                yield [self._IMPOSSIBLE]
            if block is None:
                self._is_too_long = True
                yield [self._IMPOSSIBLE]
            else:
                self.read += len(block)
                # splits at a carriage return alone too, and leaves all line breaks as they are
                yield io.StringIO(block.decode("utf-8", "surrogateescape"), newline="")

    def reason(self, error: csv.Error) -> str:
        """Why the row is bad that the reader gave up."""
        is_too_long, self._is_too_long = self._is_too_long, False
        return f"the row is {TOO_LONG}: a quote may never be closed" if is_too_long else f"broken CSV: {error}"
