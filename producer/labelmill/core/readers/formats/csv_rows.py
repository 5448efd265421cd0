"""CSV with a header line, of any delimiter.

`standard`: a quoted cell may hold line breaks and be of any length. `line` (tab-separated): every line is a row, and a
quote opens a cell only if it is closed on that line. `none`: quotes are letters. A part of a broken row is never read
as another row.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.specs import FileFormat
from labelmill.core.readers.bad_rows import BadRow, OnBadRow, can_be_utf8, encoding_remedy
from labelmill.core.readers.formats.csv_cells import (
    BrokenQuotesError,
    UnclosedQuoteError,
    cells_of_line,
    cells_of_row,
    has_spaces_before_quotes,
    may_end_a_cell,
    opens_a_cell,
)
from labelmill.core.readers.formats.csv_lines import IMPOSSIBLE, Lines, RowTooLongError
from labelmill.core.readers.whole_lines import TOO_LONG

_NAMES_DELIMITER = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)
_DOUBTED_LINES = 1000  #: After a broken row, in which the end of its cell would be noticed.
_UNCLOSED = "a quote is opened and not closed"
_Faults = (csv.Error, UnclosedQuoteError, BrokenQuotesError, RowTooLongError)


class CsvRow(NamedTuple):
    """One row: the line it begins on, and its cells."""

    line: int
    cells: list[str]


class CsvReader:
    """Reads the header when it is created, and the rows lazily. `columns` is empty if the file has no line."""

    def __init__(self, stream: BinaryIO, name: str, form: FileFormat, on_bad_row: OnBadRow) -> None:
        csv.field_size_limit(sys.maxsize)
        self.columns: list[str] = []
        self._name = name
        self._delimiter = form.delimiter
        self._quoting = form.quoting
        self._encoding = form.encoding
        self._on_bad_row = on_bad_row
        self._doubted_until = 0
        self._settled = 0  # no line before it is a part of a broken row
        self._lines = Lines(stream, partial(has_spaces_before_quotes, delimiter=form.delimiter))
        self._read_header()

    def _read_header(self) -> None:
        number = first_line_of_header(self._lines.from_line(1), self._delimiter)
        if number is None:
            return
        self._at = number

        def next_line() -> str | None:
            line = self._lines.line(self._at)
            self._at += 1
            return line

        try:
            if self._quoting == "standard":
                self.columns = cells_of_row(next_line, self._delimiter)
            else:
                self.columns = self._split((next_line() or "").rstrip("\r\n"))
        except _Faults as error:
            reason = self._reason(number, error)
            raise InvalidInput(f"the header line of {self._name} cannot be read: {reason}") from error
        if not all(map(can_be_utf8, self.columns)):
            remedy = encoding_remedy(self._encoding)
            raise InvalidInput(f"the header line of {self._name} (line {number}) is not {self._encoding}: {remedy}")
        self._lines.first = self._at
        self._width = len(self.columns)
        width_of_named = self._width
        while width_of_named > 1 and not self.columns[width_of_named - 1].strip():
            width_of_named -= 1
        self._min_cells = width_of_named  # what stands under trailing columns without a name may be left out

    def rows(self) -> Iterator[CsvRow]:
        """Every row that fits the header. The others go to `on_bad_row`. Raises InvalidInput where it cannot be told
        which lines belong to a broken row."""
        if not self.columns:
            return
        rows = self._rows_of_standard() if self._quoting == "standard" else self._rows_of_lines()
        lines = self._lines
        for row in rows:
            if not lines.is_utf8 and not all(map(can_be_utf8, row.cells)):
                remedy = encoding_remedy(self._encoding)
                self._on_bad_row(BadRow(self._name, row.line, f"not {self._encoding}", remedy=remedy))
                continue
            yield row

    def _rows_of_lines(self) -> Iterator[CsvRow]:
        opened: int | None = None
        while (block := self._lines.block_with(self._lines.first)) is not None:
            for number, line in enumerate(block.lines[self._lines.first - block.start :], self._lines.first):
                text = line.rstrip("\r\n")
                if not text:
                    continue
                if line is IMPOSSIBLE:
                    self._on_bad_row(BadRow(self._name, number, f"the line is {TOO_LONG}"))
                    continue
                cells = self._split(text)
                if self._min_cells <= len(cells) <= self._width:
                    yield CsvRow(number, cells)
                elif opened is not None and opens_a_cell(text, self._delimiter, self._width) is False:
                    raise InvalidInput(
                        f"{self._name}: a quoted cell seems to begin on line {opened} and to end on line {number}; say "
                        f"{named('quoting', 'standard')} if cells hold line breaks, "
                        f"{named('quoting', 'none')} if quotes are letters"
                    )
                else:
                    self._on_bad_row(BadRow(self._name, number, self._misfit(cells)))
                if self._quoting == "line" and '"' in text and _has_open_quote(text, self._delimiter):
                    opened = number
            self._lines.first = block.end

    def _split(self, text: str) -> list[str]:
        if self._quoting == "none" or '"' not in text:
            return text.split(self._delimiter)
        return cells_of_line(text, self._delimiter)

    def _rows_of_standard(self) -> Iterator[CsvRow]:
        lines = self._lines
        number, careful_at = lines.first, 0
        while True:
            block = lines.block_with(number)
            if block is None:
                return
            # the plain reader takes a third of the time
            if block.is_odd or number == careful_at:
                reader: _PlainReader | _CarefulReader = _CarefulReader(lines, number, self._delimiter)
            else:
                reader = _PlainReader(lines, number, self._delimiter)
            try:
                for cells in reader.rows:
                    following = reader.next_line
                    if number < self._doubted_until:
                        self._require_no_end_of_a_cell(number)
                    if self._min_cells <= len(cells) <= self._width:
                        yield CsvRow(number, cells)
                    elif cells:  # a blank line has none
                        following = self._after_misfit(number, following, cells)
                    is_elsewhere = following != reader.next_line or number == careful_at
                    lines.first = number = following
                    if number >= block.end or is_elsewhere:
                        break
            except _Faults as error:
                if isinstance(error, csv.Error) and number != careful_at:
                    careful_at = number  # spaces after a closing quote are a fault to it alone
                    continue
                lines.first = number = self._after_fault(number, reader.next_line, error)

    def _after_misfit(self, number: int, following: int, cells: Sequence[str]) -> int:
        """Where to read on after a row of another width. Raises InvalidInput."""
        for at in range(number + 1, following):
            is_row = opens_a_cell(self._lines.line(at) or "", self._delimiter, self._width)
            if is_row:
                self._on_bad_row(BadRow(self._name, number, _UNCLOSED))
                return number + 1
            if is_row is False:
                self._require_no_part_of_it(number, following, are_quotes_paired=False)
                break
        if len(cells) < self._min_cells and following == number + 1 and '"' in (self._lines.line(number) or ""):
            self._require_no_part_of_it(number, following, are_quotes_paired=True)
        self._on_bad_row(BadRow(self._name, number, self._misfit(cells), lines=following - number))
        return following

    def _after_fault(self, number: int, following: int, error: Exception) -> int:
        """Where to read on after a row that is no row. Raises InvalidInput."""
        line = self._lines.line(number) or ""
        reason = self._reason(number, error)
        if line is not IMPOSSIBLE:
            is_one_line = following <= number + 1 and line.count('"') % 2 == 0
            # one after another broken row may end that one's cell where it has more quotes than a stray one
            is_doubted = number < self._doubted_until and line.count('"') % 2 == 1 and line.count('"') > 1
            if is_doubted or (not is_one_line and may_end_a_cell(line, self._delimiter)):
                raise InvalidInput(
                    f"{self._name}: it cannot be told whether the quote on line {number} begins or ends a cell: close "
                    f"the cell or remove the quote, or say {named('quoting', 'none')} if quotes are letters"
                )
            try:
                self._require_no_part_of_it(number, number + 1, are_quotes_paired=is_one_line)
            except InvalidInput:
                if isinstance(error, RowTooLongError):
                    raise InvalidInput(f"{self._name}: the row that begins on line {number} is {TOO_LONG}") from error
                raise
            if following > number + 1 and not isinstance(error, RowTooLongError):
                reason = _UNCLOSED
        self._on_bad_row(BadRow(self._name, number, reason))
        return number + 1

    def _require_no_part_of_it(self, number: int, at: int, *, are_quotes_paired: bool) -> None:
        """Raise InvalidInput if a line from `at` on looks like a part of the row that begins on line `number`."""
        if are_quotes_paired and at < self._settled:
            return  # so that many broken rows do not each look for the same line
        try:
            while (line := self._lines.line(at)) is not None and line is not IMPOSSIBLE:
                if '"' in line:
                    is_row = opens_a_cell(line, self._delimiter, self._width, broken_tells_nothing=are_quotes_paired)
                    if is_row:
                        break
                    if is_row is False:
                        raise InvalidInput(
                            f"{self._name}: a quoted cell begins on line {number} and is not closed properly, and line "
                            f"{at} may be a part of it: double the quotes within the cell, or say "
                            f"{named('quoting', 'none')} if quotes are letters"
                        )
                at += 1
        except RowTooLongError:
            pass
        self._settled = at
        self._doubted_until = number + _DOUBTED_LINES

    def _require_no_end_of_a_cell(self, number: int) -> None:
        """Raise InvalidInput if a line after a broken row looks like the end of it: rows between may be parts, too."""
        line = self._lines.line(number) or ""
        if '"' in line and opens_a_cell(line, self._delimiter, self._width, broken_tells_nothing=True) is False:
            raise InvalidInput(
                f"{self._name}: line {number} looks like the end of a quoted cell that an earlier, broken row began: "
                f"double the quotes within the cell, or say {named('quoting', 'none')} if quotes are letters"
            )

    def _reason(self, number: int, error: Exception) -> str:
        if isinstance(error, RowTooLongError) or self._lines.line(number) is IMPOSSIBLE:
            return f"the row is {TOO_LONG}: a quote may never be closed"
        if isinstance(error, UnclosedQuoteError):
            return _UNCLOSED
        return "broken CSV: a quoted cell is followed by something other than a delimiter"

    def _misfit(self, cells: Sequence[str]) -> str:
        return f"{len(cells)} cells where the header has {self._width}"


class _PlainReader:
    """Rows by `csv.reader`."""

    def __init__(self, lines: Lines, number: int, delimiter: str) -> None:
        # strict: without it a quote that is never closed swallows the rest of the file without a word
        self.rows = csv.reader(lines.from_line(number), delimiter=delimiter, strict=True)
        self._start = number

    @property
    def next_line(self) -> int:
        """The number of the line after those that were read."""
        return self._start + self.rows.line_num


class _CarefulReader:
    """Rows where spaces stand between delimiters and quotes."""

    def __init__(self, lines: Lines, number: int, delimiter: str) -> None:
        self.next_line = number
        self.rows = self._rows(lines, delimiter)

    def _rows(self, lines: Lines, delimiter: str) -> Iterator[list[str]]:
        def next_line() -> str | None:
            line = lines.line(self.next_line)
            if line is not None:
                self.next_line += 1
            return line

        while lines.line(self.next_line) is not None:
            yield cells_of_row(next_line, delimiter)


def _has_open_quote(text: str, delimiter: str) -> bool:
    """Whether a cell begins with a quote that is a letter only because it is not closed on the line."""
    return any(
        cell.startswith('"') and not cell.endswith('"', 1) for cell in cells_of_line(text, delimiter) if '"' in cell
    )


def first_line_of_header(lines: Iterable[str], delimiter: str) -> int | None:
    """The number of the header's line: the first that is neither blank nor names the delimiter (`sep=;`)."""
    may_name = True
    for number, line in enumerate(lines, 1):
        if not line.strip().strip(delimiter).strip():
            continue
        if may_name and _NAMES_DELIMITER.fullmatch(line):
            may_name = False
            continue
        return number
    return None


def named_delimiter(lines: Iterable[str]) -> str | None:
    """The delimiter that the first line names, as spreadsheets write it: `sep=;`."""
    first = next((line for line in lines if line.strip()), "")
    match = _NAMES_DELIMITER.fullmatch(first)
    return match[1] if match else None
