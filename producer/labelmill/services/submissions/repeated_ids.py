"""Ids that stand for several rows: whoever joins results by them would mix rows up, so they are told."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.contracts.bounds import shown

_FIRST_IDS = 20_000  #: All ids of the first rows are remembered, at a constant 3 MB …
_EVERY = 16  #: … and one of so many later ids is compared with them.


class RepeatedIds:
    """Notices ids that repeat one of the first rows'.

    A repetition among the first rows is always found. Of later rows every sixteenth is looked at, which costs nothing
    that can be measured; ids that repeat among later rows alone are not noticed.
    """

    def __init__(self) -> None:
        self.example: str | None = None
        self._seen: set[str] = set()

    def add(self, ids: Sequence[str | None]) -> None:
        """Look at the ids of the next rows."""
        if self.example is not None:
            return
        if len(self._seen) >= _FIRST_IDS:
            if not self._seen.isdisjoint(some := ids[::_EVERY]):
                self.example = next(one for one in some if one in self._seen)
            return
        for one in ids:
            if one is None:
                continue
            if one in self._seen:
                self.example = one
                return
            self._seen.add(one)
            if len(self._seen) >= _FIRST_IDS:
                return

    def __str__(self) -> str:
        return f"the id {shown(self.example or '')} stands for several rows: tell results apart by their row number"
