r"""Escapes characters that a terminal would execute instead of showing: `\x1b`, `\u202e`.

Labels, names, file names, Mistral's texts and messages on Redis come from outside. Printed unescaped, they could clear
the screen, set the window's title, forge lines, or reorder the text on the screen.
"""

from __future__ import annotations

import re

#: C0 but tab and newline, DEL, C1, marks and overrides of direction, line and paragraph separators, lone surrogates.
_OBEYED = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_OBEYED}]")
_IN_LINE = re.compile(f"[{_OBEYED}\t\n]")
#: Of JSON as orjson writes it: it has escaped C0 itself.
_IN_JSON = re.compile(f"[{_OBEYED}]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    """A text for a terminal. Newlines and tabs stay."""
    return text if text.isascii() and text.isprintable() else _IN_TEXT.sub(_escape, text)


def visible_line(text: str) -> str:
    """A text for one line of a terminal or a log."""
    return text if text.isascii() and text.isprintable() else _IN_LINE.sub(_escape, text)


def visible_json(document: str) -> str:
    """A JSON document for a terminal: control characters become JSON escapes, so that its meaning stays the same."""
    return _IN_JSON.sub(_escape_in_json, document)


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    number = ord(letter)
    return _SHORT.get(letter) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def _escape_in_json(match: re.Match[str]) -> str:
    # a carriage return or the like can only be white space between members
    return f"\\u{ord(match[0]):04x}" if ord(match[0]) >= 0x7F else " "
