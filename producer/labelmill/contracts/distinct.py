"""Which texts of a stream were there before, at 12 bytes a distinct text.

Texts are known by Python's 64-bit keyed hash. Among ten million distinct texts the chance that any two share one is
3 in a million; the key is new in every process, so nobody can make texts that collide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BUCKETS = 8  # merging one bucket needs memory for that bucket only
_BUCKET_SHIFT = np.uint64(61)  # a bucket is told by the hash's first three bits
_YOUNG = 32_768


class _Bucket:
    """Sorted hashes with the row each was first seen in: a large run, and a young one that is merged into it."""

    __slots__ = ("old", "old_rows", "young", "young_rows")

    def __init__(self) -> None:
        self.old = self.young = np.empty(0, np.uint64)
        self.old_rows = self.young_rows = np.empty(0, np.uint32)

    def find(self, hashes: NDArray[np.uint64], found: NDArray[np.int64]) -> None:
        """Put the first row of each known hash into `found`."""
        for run, rows in ((self.old, self.old_rows), (self.young, self.young_rows)):
            if not run.size:
                continue
            at = np.searchsorted(run, hashes)
            at[at == run.size] = 0
            known = run[at] == hashes
            found[known] = rows[at[known]]

    def add(self, hashes: NDArray[np.uint64], rows: NDArray[np.uint32]) -> None:
        """Remember hashes that are sorted and new."""
        self.young, self.young_rows = _merge(self.young, self.young_rows, hashes, rows)
        if self.young.size > max(_YOUNG, self.old.size // 4):
            self.old, self.old_rows = _merge(self.old, self.old_rows, self.young, self.young_rows)
            self.young, self.young_rows = self.young[:0].copy(), self.young_rows[:0].copy()


def _merge(
    left: NDArray[np.uint64], left_rows: NDArray[np.uint32], right: NDArray[np.uint64], right_rows: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    at = np.searchsorted(left, right) + np.arange(right.size)
    is_left = np.ones(left.size + right.size, bool)
    is_left[at] = False
    merged, rows = np.empty(is_left.size, np.uint64), np.empty(is_left.size, np.uint32)
    merged[at], rows[at] = right, right_rows
    merged[is_left], rows[is_left] = left, left_rows
    return merged, rows


class DistinctTexts:
    """Remembers every text it is shown."""

    def __init__(self) -> None:
        self._buckets = [_Bucket() for _ in range(_BUCKETS)]

    def first_rows(self, texts: Sequence[str], first_row: int) -> NDArray[np.int64]:
        """For each of `texts` (rows `first_row`, `first_row` + 1, …) the earlier row with the same text, or -1.

        Call it with some ten thousand texts at a time.
        """
        count = len(texts)
        hashes = np.fromiter(map(hash, texts), np.int64, count).view(np.uint64)
        order = np.argsort(hashes)  # not stable, which takes twice the time: the first of equal ones is found below
        ordered = hashes[order]
        is_first = np.ones(count, bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(is_first)
        unique = ordered[starts]
        rows_of_unique = (np.minimum.reduceat(order, starts) + first_row).astype(np.uint32)
        found = np.full(unique.size, -1, np.int64)
        bounds = np.searchsorted(unique, np.arange(1, _BUCKETS, dtype=np.uint64) << _BUCKET_SHIFT)
        for bucket, (start, stop) in zip(
            self._buckets, zip([0, *bounds.tolist()], [*bounds.tolist(), unique.size], strict=True), strict=True
        ):
            if start == stop:
                continue
            part = unique[start:stop]
            bucket.find(part, found[start:stop])
            new = found[start:stop] < 0
            bucket.add(part[new], rows_of_unique[start:stop][new])
        answers = np.where(found < 0, rows_of_unique.astype(np.int64), found)
        result = np.empty(count, np.int64)
        result[order] = np.repeat(answers, np.diff(starts, append=count))
        result[result == np.arange(first_row, first_row + count)] = -1
        return result
