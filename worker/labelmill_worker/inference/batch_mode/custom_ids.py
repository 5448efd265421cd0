"""The custom id of a line: which request of which chunk it is. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_CUSTOM_ID = re.compile(r"(\d{1,10})-(\d{1,7})", re.ASCII)


class Place(NamedTuple):
    """A request of a remote batch: its chunk, and its number among the chunk's requests."""

    chunk: int
    request: int


def custom_id(place: Place) -> str:
    """The id of its line."""
    return f"{place.chunk}-{place.request}"


def place_of(line_id: str | None) -> Place | None:
    """The reverse; None for an id that is missing or not of this form."""
    found = _CUSTOM_ID.fullmatch(line_id) if isinstance(line_id, str) else None
    return Place(int(found[1]), int(found[2])) if found else None
