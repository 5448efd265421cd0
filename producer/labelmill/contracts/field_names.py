"""How a sentence names a field of a request: marked, so that each caller can call it by the name that he knows.

A service says `f"{named('max_cost')} must be 0 or more"`. The command line shows `--max-cost must be 0 or more`, the
Python client `max_cost must be 0 or more`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

#: Unicode keeps these two for uses such as this one: no text holds them.
_BEGIN, _END = "\ufdd0", "\ufdd1"
_NAMED = re.compile(f"{_BEGIN}([a-z_]+)(?:=([^{_END}]*))?{_END}")

Naming = Callable[[str, str], str]  #: (field, value, "" for none) → how a caller writes it.


def named(field: str, value: str = "") -> str:
    """A field of a request within a sentence, with a value where the sentence speaks of one."""
    return f"{_BEGIN}{field}={value}{_END}" if value else f"{_BEGIN}{field}{_END}"


def tell(sentence: str, naming: Naming) -> str:
    """The sentence as one caller reads it."""
    if _BEGIN not in sentence:
        return sentence
    return _NAMED.sub(lambda match: naming(match[1], match[2] or ""), sentence)


def first_field(sentence: str) -> str | None:
    """The field that a sentence names first."""
    match = _NAMED.search(sentence)
    return match and match[1]


def as_parameter(field: str, value: str) -> str:
    """`on_bad_row=skip`, as in Python."""
    return f"{field}={value}" if value else field


def as_option(field: str, value: str) -> str:
    """`--on-bad-row skip`: how a job's stored error calls the fields of reading, for `labelmill status` shows it."""
    return f"--{field.replace('_', '-')}{f' {value}' if value else ''}"


@dataclass(frozen=True)
class Notice:
    """What did not stop a call but should be known; its sentence may name fields."""

    sentence: str

    @property
    def message(self) -> str:
        """With fields by their names in Python."""
        return tell(self.sentence, as_parameter)

    def told(self, naming: Naming) -> str:
        """For a caller who calls fields by other names."""
        return tell(self.sentence, naming)
