"""Whether a file has the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.near_matches import did_you_mean

FIRST_ROWS = 1000  #: The columns of JSONL are those of so many rows.
_NAMED = 30
_USUAL_TEXT = "text"  #: The column of the texts where none is named.


def check_columns(name: str, present: Iterable[str], wanted: Iterable[str], *, are_fixed: bool = False) -> None:
    """Raise InvalidInput, naming the columns there are, unless each of `wanted` is one of them. `are_fixed`: no option
    names other ones."""
    places_of_columns(name, list(present), list(wanted), are_fixed=are_fixed)


def places_of_columns(
    name: str, present: Sequence[str], wanted: Sequence[str], *, are_fixed: bool = False
) -> list[int]:
    """Where each wanted column stands; white space around a name in the file does not count. Raises InvalidInput where
    there is none, or several."""
    return [_place(name, present, column, are_fixed=are_fixed) for column in wanted]


def _place(name: str, present: Sequence[str], column: str, *, are_fixed: bool) -> int:
    for names in (list(present), [present_name.strip() for present_name in present]):
        if (count := names.count(column)) > 1:
            raise InvalidInput(f"{name} has {count} columns named {shown(column)}: rename all but one")
        if count:
            return names.index(column)
    near = did_you_mean(column, present, show=shown)
    remedy = f"; {named('text')} names the column of the texts" if column == _USUAL_TEXT and not are_fixed else ""
    listed = ", ".join(map(shown, present[:_NAMED]))
    raise InvalidInput(f"{name} has no column {shown(column)}; it has {listed}{near}{remedy}")


def clear_names(present: Sequence[str]) -> list[str]:
    """The names that stand for one column each."""
    return [column for column in present if column.strip() and present.count(column) == 1]


class SeenColumns:
    """The columns of rows that each name their own: those of the first thousand rows count."""

    def __init__(self, name: str, wanted: Sequence[str]) -> None:
        self.is_settled = not wanted
        self.name = name
        self._wanted = wanted
        self._missing = set(wanted)
        self._seen: dict[str, None] = {}
        self._rows = 0

    def settle(self) -> None:
        """A row has them all."""
        self.is_settled = True

    def add(self, row: Iterable[str]) -> None:
        """Look at a row's columns. Raises InvalidInput when the first rows lack a column."""
        self._rows += 1
        self._seen.update(dict.fromkeys(row))
        self._missing.difference_update(self._seen)
        self.is_settled = not self._missing
        if not self.is_settled and self._rows >= FIRST_ROWS:
            self.finish()

    def finish(self) -> None:
        """No more rows come. Raises InvalidInput when they lack a column."""
        if self._rows and not self.is_settled:
            check_columns(self.name, self._seen, self._wanted)
