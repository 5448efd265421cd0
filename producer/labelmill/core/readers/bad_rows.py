"""Rows that cannot be read, and sentences that explain why a value is not a text."""

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
    lines: int = 1  #: The number of lines that it occupies.
    remedy: str = ""  #: What to do, where the file should be corrected rather than the row skipped.

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
    """A cell as text: numbers and dates are formatted, bytes are decoded as UTF-8, a missing value (also NaN) is "".

    None: the value is not a single one, or not UTF-8, or an object that has no text.
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
    if not isinstance(value, int | float) and _has_no_text(type(value)):
        return None
    if value != value:  # noqa: PLR0124 - NaN, the only value unequal to itself, is a missing value in Parquet
        return ""
    return str(value)


def _has_no_text(kind: type) -> bool:
    """Whether values of this type hold several, as tables do, or are shown by their address alone."""
    if hasattr(kind, "__len__") or hasattr(kind, "__iter__"):
        return True
    return getattr(kind, "__str__", None) is object.__str__ and getattr(kind, "__repr__", None) is object.__repr__


def can_be_utf8(text: str) -> bool:
    """Whether `text` can be written as UTF-8 (lone surrogates cannot)."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
