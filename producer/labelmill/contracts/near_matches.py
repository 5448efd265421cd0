"""Suggestions for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from labelmill.contracts.bounds import plain

_SHOWN = 3


def near_matches(written: str, names: Iterable[str]) -> list[str]:
    """The names most similar to what was written, the most similar first; case is ignored."""
    by_folded: dict[str, str] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), name)
    near = difflib.get_close_matches(written.casefold()[:200], by_folded, n=_SHOWN, cutoff=0.6)
    return [by_folded[folded] for folded in near]


def did_you_mean(written: str, names: Iterable[str], *, show: Callable[[str], str] = plain) -> str:
    """`: did you mean a or b?`, to be appended to a sentence; empty where no name is similar. `show` formats a name."""
    near = near_matches(written, names)
    return f": did you mean {' or '.join(map(show, near))}?" if near else ""
