"""Checking that a file has the requested columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.near_matches import did_you_mean

FIRST_ROWS = 1000  #: The columns of JSONL are those of this many first rows.
_NAMED = 30
_USUAL_TEXT = "text"  #: The column of the texts where none is named.


class MissingColumn(InvalidInput):
    """A source has not the `column`."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


@contextmanager
def columns_named_by(fields: Mapping[str, str | None]) -> Iterator[None]:
    """A column that is missing inside is a fault of the request's field that names it. `fields`: by column."""
    try:
        yield
    except MissingColumn as error:
        error.field = fields.get(error.column) or error.field
        raise


def check_columns(name: str, present: Iterable[str], wanted: Iterable[str], *, are_fixed: bool = False) -> None:
    """Raise InvalidInput, naming the columns that are present, unless all `wanted` ones are. `are_fixed`: no option
    chooses other columns."""
    places_of_columns(name, list(present), list(wanted), are_fixed=are_fixed)


def places_of_columns(
    name: str, present: Sequence[str], wanted: Sequence[str], *, are_fixed: bool = False
) -> list[int]:
    """The index of each wanted column; white space around a name in the file is ignored. Raises InvalidInput for a
    column that is missing or not unique."""
    return [_place(name, present, column, are_fixed=are_fixed) for column in wanted]


def _place(name: str, present: Sequence[str], column: str, *, are_fixed: bool) -> int:
    for names in (list(present), [present_name.strip() for present_name in present]):
        if (count := names.count(column)) > 1:
            raise MissingColumn(f"{name} has {count} columns named {shown(column)}: rename all but one", column)
        if count:
            return names.index(column)
    near = did_you_mean(column, present, show=shown)
    remedy = f"{named('text')} names the column of the texts" if column == _USUAL_TEXT and not are_fixed else ""
    parted = (" " if near else "; ") if remedy else ""
    listed = ", ".join(map(shown, present[:_NAMED])) or "none"
    raise MissingColumn(f"{name} has no column {shown(column)}; it has {listed}{near}{parted}{remedy}", column)


def clear_names(present: Sequence[str]) -> list[str]:
    """The names that are unique and not blank."""
    return [column for column in present if column.strip() and present.count(column) == 1]


class SeenColumns:
    """Collects the columns of the first thousand JSONL rows, each of which names its own columns."""

    def __init__(self, name: str, wanted: Sequence[str]) -> None:
        self.is_settled = not wanted
        self.name = name
        self._wanted = wanted
        self._missing = set(wanted)
        self._seen: dict[str, None] = {}
        self._rows = 0

    def settle(self) -> None:
        """A row has all wanted columns."""
        self.is_settled = True

    def add(self, row: Iterable[str]) -> None:
        """Add a row's columns. Raises InvalidInput when the first rows lack a wanted column."""
        self._rows += 1
        self._seen.update(dict.fromkeys(row))
        self._missing.difference_update(self._seen)
        self.is_settled = not self._missing
        if not self.is_settled and self._rows >= FIRST_ROWS:
            self.finish()

    def finish(self) -> None:
        """Call after the last row. Raises InvalidInput when the rows lack a wanted column."""
        if self._rows and not self.is_settled:
            check_columns(self.name, self._seen, self._wanted)
