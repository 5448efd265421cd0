"""Which character stands between the cells of a CSV file: told by its header and its first rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelmill.core.readers.formats.csv_cells import BrokenQuotesError, UnclosedQuoteError, cells_of_line, cells_of_row
from labelmill.core.readers.formats.csv_rows import first_line_of_header, named_delimiter

CANDIDATES = (",", ";", "\t", "|")  #: The first is taken where nothing speaks for another one.
_ROWS = 100


def find_delimiter(lines: Sequence[str], columns: Sequence[str], quoting: str | None, *, prefers_tab: bool) -> str:
    """The delimiter of a file that begins with `lines`.

    A `sep=;` line decides. Else the header must have the character outside of quotes. Among several that one is taken
    with which the header has all `columns`; then one with which every row has as many cells as the header; then the one
    with the most cells; then the comma.
    """
    named = named_delimiter(lines)
    if named is not None:
        return named

    def weight(delimiter: str) -> tuple[bool, bool, int]:
        header, is_consistent = _try(lines, delimiter, quoting)
        if len(header) < 2:
            return False, False, 0
        names = {name for cell in header for name in (cell, cell.strip())}
        return names.issuperset(columns), is_consistent, len(header) if is_consistent else 1

    weights = {delimiter: weight(delimiter) for delimiter in CANDIDATES}
    if prefers_tab and (weights["\t"][2] or not any(cells for _, _, cells in weights.values())):
        return "\t"
    return max(CANDIDATES, key=lambda delimiter: weights[delimiter])


def _try(lines: Sequence[str], delimiter: str, quoting: str | None) -> tuple[list[str], bool]:
    """The header's cells with a delimiter, and whether every row has as many."""
    start = first_line_of_header(lines, delimiter)
    if start is None:
        return [], False
    remaining = iter(lines[start - 1 :])
    header: list[str] = []
    for number, cells in enumerate(_rows(remaining, delimiter, quoting)):
        if number == 0:
            header = cells
        elif cells and len(cells) != len(header):
            return header, False
        if number == _ROWS:
            break
    return header, True


def _rows(lines: Iterator[str], delimiter: str, quoting: str | None) -> Iterator[list[str]]:
    def next_line() -> str | None:
        return next(lines, None)

    for line in lines:
        waiting = [line]
        if quoting == "none" or '"' not in line:
            text = line.rstrip("\r\n")
            yield text.split(delimiter) if text else []
        elif delimiter == "\t" and quoting is None:
            yield cells_of_line(line.rstrip("\r\n"), delimiter)
        else:
            try:
                yield cells_of_row(lambda: waiting.pop() if waiting else next_line(), delimiter)  # noqa: B023 - used here
            except BrokenQuotesError:
                yield [""]  # no header, and no row of any
            except UnclosedQuoteError:  # the sample may end within the cell
                return
