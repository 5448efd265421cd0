"""How a sentence names a field of a request: marked, so that each caller sees the name that it uses for the field.

A service says `f"{named('max_cost')} must be 0 or more"`. The command line shows `--max-cost must be 0 or more`, the
Python client `max_cost must be 0 or more`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

#: Unicode keeps these two for uses such as this one: no text holds them.
_BEGIN, _END = "\ufdd0", "\ufdd1"
_MAX_VALUE = 300
_NAMED = re.compile(f"{_BEGIN}([a-z_]{{1,40}})(?:=([^{_END}]{{0,{_MAX_VALUE}}}))?{_END}")

Naming = Callable[[str, str], str]  #: (field, value, "" for none) → how a caller writes it.


def named(field: str, value: str = "") -> str:
    """A field of a request within a sentence, with a value where the sentence speaks of one."""
    return f"{_BEGIN}{field}={value[:_MAX_VALUE]}{_END}" if value else f"{_BEGIN}{field}{_END}"


def write_names(sentence: str, naming: Naming) -> str:
    """The sentence with every marked field written by `naming`."""
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
    """`--on-bad-row skip`: how a job's stored error names fields, because `labelmill status` shows it."""
    return f"--{field.replace('_', '-')}{f' {value}' if value else ''}"


@dataclass(frozen=True)
class Notice:
    """A warning: it did not stop a call, but the caller should know it. Its sentence may name fields."""

    sentence: str

    @property
    def message(self) -> str:
        """With fields by their names in Python."""
        return write_names(self.sentence, as_parameter)

    def message_for(self, naming: Naming) -> str:
        """With fields named as one kind of caller names them."""
        return write_names(self.sentence, naming)
