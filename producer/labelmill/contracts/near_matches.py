"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from labelmill.contracts.bounds import plain

_SHOWN = 3


def near_matches(written: str, names: Iterable[str]) -> list[str]:
    """The names most like what was written, the nearest first, whatever its case."""
    by_folded: dict[str, str] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), name)
    near = difflib.get_close_matches(written.casefold()[:200], by_folded, n=_SHOWN, cutoff=0.6)
    return [by_folded[folded] for folded in near]


def did_you_mean(written: str, names: Iterable[str], *, show: Callable[[str], str] = plain) -> str:
    """`: did you mean a or b?`, to go behind a sentence; empty where nothing is near. `show`: how a name is written."""
    near = near_matches(written, names)
    return f": did you mean {' or '.join(map(show, near))}?" if near else ""
