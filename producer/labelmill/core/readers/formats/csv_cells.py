"""Splits one row of CSV into cells: where a quoted cell begins and ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

_INSIDE = re.compile(r'[^"]*+(?:""[^"]*+)*+')
_LINE_END = ("", "\n", "\r")


class UnclosedQuoteError(Exception):
    """A quoted cell is open where the lines end."""


class BrokenQuotesError(Exception):
    """Something other than a delimiter follows a quoted cell."""


class _Patterns(NamedTuple):
    opening: re.Pattern[str]
    after: re.Pattern[str]
    plain: re.Pattern[str]
    on_one_line: re.Pattern[str]
    two_at_end: re.Pattern[str]
    spaces_before_quote: tuple[re.Pattern[str], ...]


@lru_cache
def _patterns(delimiter: str) -> _Patterns:
    cut = re.escape(delimiter)
    return _Patterns(
        re.compile(rf'"| ++"(?!"[^"{cut}\r\n])'),  # as below: two quotes before a word are an escaped quote
        re.compile(rf" *+(?:({cut})|\r\n|\n|\r|\Z)"),
        re.compile(rf"[^{cut}\r\n]*+({cut})?"),
        re.compile(rf'"([^"]*+(?:""[^"]*+)*+)"(?:({cut})|\Z)'),
        re.compile(rf'""(?:{cut}|[\r\n]|\Z)'),
        # each begins with literal characters, which are searched three times as fast; two quotes before a word are an
        # escaped quote
        tuple(re.compile(rf'{start} +"(?!"[^"{cut}\r\n])') for start in (cut, "\n", "\r")),
    )


def has_spaces_before_quotes(text: str, delimiter: str) -> bool:
    """Whether `csv.reader` may read `text` differently from `cells_of_row`: `a, "b"`."""
    if ' "' not in text:
        return False
    return text.startswith(" ") or any(pattern.search(text) for pattern in _patterns(delimiter).spaces_before_quote)


def cells_of_row(next_line: Callable[[], str | None], delimiter: str) -> list[str]:
    """The cells of the row that begins with the next line. Raises UnclosedQuoteError, BrokenQuotesError.

    As `csv.reader` in its strict mode, except that spaces outside the quotes of a quoted cell are ignored. `next_line`
    returns None at the end.
    """
    patterns = _patterns(delimiter)
    line, at = next_line() or "", 0
    cells: list[str] = []
    if line.strip("\r\n") == "":
        return cells
    while True:
        opening = patterns.opening.match(line, at)
        if opening is None:
            plain = patterns.plain.match(line, at)
            assert plain is not None  # noqa: S101 - it matches nothing, too
            more = plain[1]
            cells.append(line[at : plain.start(1) if more else plain.end()])
            at = plain.end()
        else:
            parts, at = [], opening.end()
            while True:
                inside = _INSIDE.match(line, at)
                assert inside is not None  # noqa: S101 - it matches nothing, too
                parts.append(inside[0])
                at = inside.end()
                if at < len(line):
                    break
                following = next_line()
                if following is None:
                    raise UnclosedQuoteError
                line, at = following, 0
            after = patterns.after.match(line, at + 1)
            if after is None:
                raise BrokenQuotesError
            cells.append("".join(parts).replace('""', '"'))
            more, at = after[1], after.end()
        if not more:
            return cells


def cells_of_line(line: str, delimiter: str) -> list[str]:
    """The cells of a line where a quote opens a cell only if its closing quote stands on the same line, before a
    delimiter or the line's end. Every other quote is a letter."""
    quoted_cell = _patterns(delimiter).on_one_line
    cells: list[str] = []
    at = 0
    while True:
        quoted = quoted_cell.match(line, at) if line.startswith('"', at) else None
        if quoted is not None:
            cells.append(quoted[1].replace('""', '"'))
            if not quoted[2]:
                return cells
            at = quoted.end()
            continue
        end = line.find(delimiter, at)
        if end < 0:
            cells.append(line[at:])
            return cells
        cells.append(line[at:end])
        at = end + 1


def opens_a_cell(line: str, delimiter: str, width: int, *, broken_tells_nothing: bool = False) -> bool | None:
    """Whether the first telling quote of `line` opens a cell, so that the line begins outside of any quotes.

    False: it looks like the end, or like a part, of a cell that an earlier line began. None: no quote tells anything;
    with `broken_tells_nothing` this is said of a line that is no row of `width` cells and has its quotes in pairs.
    """
    at = line.find('"')
    while at >= 0:
        following = line[at + 1 : at + 2]
        before = line[:at].rstrip(" ")
        if not before or before.endswith(delimiter):
            is_row = _is_row_of_its_own(line, delimiter, width, may_be_open=following not in (delimiter, *_LINE_END))
            return None if not is_row and broken_tells_nothing and line.count('"') % 2 == 0 else is_row
        end = at + (2 if following == '"' else 1)  # two stand for a quote within quotes
        following = line[end : end + 1]
        if following == delimiter or following in _LINE_END:
            return False
        at = line.find('"', end)
    return None


def may_end_a_cell(line: str, delimiter: str) -> bool:
    """Whether the first quote of a line that has an unclosed one may as well end the cell of an earlier line."""
    at = line.find('"')
    following = line[at + 1 : at + 2]
    return at >= 0 and (following == delimiter or following in _LINE_END)


def _is_row_of_its_own(line: str, delimiter: str, width: int, *, may_be_open: bool) -> bool:
    lines: Iterator[str] = iter([line])
    try:
        return len(cells_of_row(lambda: next(lines, None), delimiter)) == width
    except UnclosedQuoteError:  # two quotes before a delimiter: a bare one, and one that ends the cell
        return may_be_open and not _patterns(delimiter).two_at_end.search(line)
    except BrokenQuotesError:
        return False
