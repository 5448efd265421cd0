"""Warns of ids that stand for several rows, because joining results by them would mix up rows."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.contracts.bounds import shown

_FIRST_IDS = 20_000  #: All ids of this many first rows are remembered, in a constant 3 MB.
_EVERY = 16  #: Of later ids every sixteenth is compared with them.


class RepeatedIds:
    """Finds ids that repeat an id of the first rows.

    A repetition among the first rows is always found. Of later rows every sixteenth is looked at, which costs nothing
    that can be measured; ids that repeat among later rows alone are not noticed.
    """

    def __init__(self) -> None:
        self.example: str | None = None
        self._seen: set[str] = set()

    def add(self, ids: Sequence[str | None]) -> None:
        """Check the ids of the next rows."""
        if self.example is not None:
            return
        if len(self._seen) >= _FIRST_IDS:
            if not self._seen.isdisjoint(sampled := ids[::_EVERY]):
                self.example = next(row_id for row_id in sampled if row_id in self._seen)
            return
        for row_id in ids:
            if row_id is None:
                continue
            if row_id in self._seen:
                self.example = row_id
                return
            self._seen.add(row_id)
            if len(self._seen) >= _FIRST_IDS:
                return

    def __str__(self) -> str:
        return f"the id {shown(self.example or '')} stands for several rows: tell results apart by their row number"
