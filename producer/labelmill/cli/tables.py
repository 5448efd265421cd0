"""Tables that fit the terminal without truncation, so that ids can be copied.

Columns that are empty in every row are left out. Where a terminal is too narrow for the rest, each row becomes a few
lines, one for each column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelmill.contracts.amounts import written
from labelmill.contracts.control_characters import visible

Cell = str | Text

_MIN_FLOWING = 20  # of a column whose words may be broken into lines
_MIN_OF_SEVERAL = 32  # where several have to share the width
_GAP = 2
_FEW = 6  # parts that may be shown in parentheses


def print_rows(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    flowing: Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Print rows under headings. The columns in `flowing` hold sentences, which may be broken into lines."""
    rows = [[visible(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    shown_columns = [at for at in range(len(headings)) if at == 0 or not rows or any(len(row[at]) for row in rows)]
    min_flowing = _MIN_FLOWING if len(flowing) < 2 else _MIN_OF_SEVERAL
    widths = {at: max(len(headings[at]), *(len(row[at]) for row in rows), 0) for at in shown_columns}
    least = sum(min(widths[at], min_flowing) if headings[at] in flowing else widths[at] for at in shown_columns)
    if rows and least + _GAP * len(shown_columns) > console.width:
        _print_records(console, headings, [[row[at] for at in shown_columns] for row in rows], shown_columns, title)
        return
    table = Table(box=None, title=title, title_justify="left", title_style="bold")
    for at in shown_columns:
        is_flowing = headings[at] in flowing
        table.add_column(
            headings[at], no_wrap=not is_flowing, overflow="fold", min_width=None if is_flowing else widths[at]
        )
    for row in rows:
        table.add_row(*(row[at] for at in shown_columns))
    _print(console, table)


def _print_records(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    shown_columns: Sequence[int],
    title: str | None,
) -> None:
    if title:
        console.print(title, style="bold")
    for row in rows:
        console.print(row[0])
        table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0))
        for at, cell in zip(shown_columns[1:], row[1:], strict=True):
            if len(cell):
                table.add_row(f"  {headings[at]}", cell)
        _print(console, table)


def _print(console: Console, table: Table) -> None:
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as written:
        console.print(table)
    console.file.write("".join(f"{line.rstrip()}\n" for line in written.get().splitlines()))  # Rich pads its lines


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and what they stand for, a line each or as many as it needs."""
    table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for pair in pairs:
        table.add_row(*pair)
    if pairs:
        _print(console, table)


def print_details(console: Console, document: Mapping[str, Any]) -> None:
    """Print a document as names and values, without empty and deeply nested ones."""
    shown = [(name, value) for name, value in document.items() if value not in (None, [], {}, "")]
    print_pairs(console, [(name, at_a_glance(value)) for name, value in shown])


def at_a_glance(value: Any) -> str:
    """A value for people: times without their zone, four digits of fractions, a line for each nested value, and only
    the number of parts of deeper ones."""
    if isinstance(value, Mapping) and not _is_money(value):
        lines = [_plain(value)]
        lines += [
            f"{name}: {_plain(part) or ', '.join(f'{item} ({_inside(inner)})' for item, inner in part.items())}"
            for name, part in value.items()
            if part and isinstance(part, Mapping) and not _is_money(part)
        ]
        return "\n".join(filter(None, lines))
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return "\n".join(map(at_a_glance, value))
    return _word(value)


def _plain(value: Mapping[str, Any]) -> str:
    """The parts of a nested value on one line."""
    return ", ".join(
        f"{name} {_word(part)}"
        for name, part in value.items()
        if part not in (None, []) and (not isinstance(part, Mapping) or _is_money(part)) and not _is_deep(part)
    )


def _inside(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) <= _FEW:
        return _plain(value)
    return str(len(value)) if isinstance(value, (Mapping, list)) else _word(value)


def _is_deep(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(part, (Mapping, list)) for part in value)


def _is_money(value: Any) -> bool:
    return isinstance(value, Mapping) and "amount" in value and "currency" in value


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_word, value))
    if isinstance(value, Mapping):
        other_fields = _plain({name: part for name, part in value.items() if name not in ("amount", "currency")})
        return f"{_amount(value['amount'])} {value['currency']}" + (f" ({other_fields})" if other_fields else "")
    if not isinstance(value, str):
        return str(value)
    time = short_time(value)
    return f"{time} UTC" if time != value else value


def _amount(value: Any) -> str:
    return written(value) if isinstance(value, (int, float)) else "not known"


def short_time(text: str) -> str:
    """`2026-11-24 15:29:52` for a time in ISO form (all are in UTC); any other text unchanged."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}" if text[4:5] == "-" and "T" in text else text
    except ValueError:
        return text
