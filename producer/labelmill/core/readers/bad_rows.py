"""A row that cannot be read, and the little words that explain why a value is no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labelmill.contracts.field_names import named


@dataclass(frozen=True, slots=True)
class BadRow:
    """One unreadable row. `line` counts from 1; in Parquet it is the row's number."""

    file: str
    line: int
    reason: str
    lines: int = 1  #: It takes up so many.
    remedy: str = ""  #: What helps, where leaving the row out is not the thing to do.

    def __str__(self) -> str:
        to = f"-{self.line + self.lines - 1}" if self.lines > 1 else ""
        return f"{self.file}:{self.line}{to}: {self.reason}"


UTF_8 = "UTF-8"
OnBadRow = Callable[[BadRow], None]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a cell whose value Python cannot hold, such as a date beyond the year 9999."""

    reason: str


_KINDS = {
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "bool": "true or false",
    "bytes": "binary data that is not UTF-8",
}


def encoding_remedy(encoding: str) -> str:
    """What to do about a file that is not in the encoding it was read in."""
    if encoding == UTF_8:
        return f"save the file as UTF-8, or name its encoding, such as {named('encoding', 'cp1252')}"
    return f"name the encoding of the file with {named('encoding')}, or save it as UTF-8"


def kind_of_value(value: Any) -> str:
    """The JSON word for a value's type, such as `a list` or `an object`."""
    if isinstance(value, Unreadable):
        return f"not readable ({value.reason})"
    name = type(value).__name__
    return _KINDS.get(name, f"of type {name}")


def value_as_text(value: Any) -> str | None:
    """A cell as text: numbers and dates written out, bytes that are UTF-8 read, nothing at all (also NaN) is "".

    None: it is no single value.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, list | tuple | dict | bytearray | Unreadable):
        return None
    if value != value:  # noqa: PLR0124 - NaN, which Parquet writers put for "nothing", is the one value unlike itself
        return ""
    return str(value)


def can_be_utf8(text: str) -> bool:
    """Whether `text` can be written as UTF-8 (lone surrogates cannot)."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
