"""Which texts of a stream were there before, at 12 bytes a distinct text.

Texts are known by Python's 64-bit keyed hash. Among ten million distinct texts the chance that any two share one is
3 in a million; the key is new in every process, so nobody can make texts that collide.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BUCKETS = 16  # merging one bucket needs memory for that bucket only
_BUCKET_STARTS = np.arange(1, _BUCKETS, dtype=np.uint64) << np.uint64(60)  # told by the hash's first four bits
_FEW = 1 << 16

Hashes = NDArray[np.uint64]
Rows = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class _Run:
    """Sorted hashes with the row each was first seen in."""

    hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    rows: Rows = field(default_factory=lambda: np.empty(0, np.uint32))

    def find(self, hashes: Hashes, found: NDArray[np.int64]) -> None:
        """Put the first row of each known hash into `found`."""
        if not self.hashes.size:
            return
        at = np.searchsorted(self.hashes, hashes)
        at[at == self.hashes.size] = 0
        known = np.flatnonzero(self.hashes[at] == hashes)
        found[known] = self.rows[at[known]]

    def merged_with(self, hashes: Hashes, rows: Rows) -> _Run:
        """A run with these too, which are sorted and new."""
        both = np.concatenate([self.hashes, hashes])
        order = np.argsort(both, kind="stable")  # finds the two sorted parts and merges them
        return _Run(both[order], np.concatenate([self.rows, rows])[order])


class _Bucket:
    """A run that grows, in memory of its own: arrays that larger ones replace would leave the heap full of holes, half
    as large as all that is kept."""

    def __init__(self) -> None:
        self.run = _Run()
        self._room = _Run()

    def merge(self, hashes: Hashes, rows: Rows) -> None:
        """Take these too, which are sorted and new."""
        merged = self.run.merged_with(hashes, rows)
        count = merged.hashes.size
        if count > self._room.hashes.size:
            self._room = _Run(_reserved(2 * count, np.uint64), _reserved(2 * count, np.uint32))
        self.run = _Run(self._room.hashes[:count], self._room.rows[:count])
        self.run.hashes[:], self.run.rows[:] = merged.hashes, merged.rows


def _reserved(count: int, kind: type[np.generic]) -> NDArray[Any]:
    """An array whose memory is taken page by page as it is written, and goes back to the system with it."""
    return np.frombuffer(mmap.mmap(-1, count * np.dtype(kind).itemsize), kind)


class DistinctTexts:
    """Remembers every text it is shown."""

    def __init__(self) -> None:
        self._old = [_Bucket() for _ in range(_BUCKETS)]
        self._young = _Run()  # what came lately, merged into the others when there is enough of it
        self._old_size = 0

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
        found = self._find(unique)
        is_new = found < 0
        self._remember(unique[is_new], rows_of_unique[is_new])
        answers = np.where(is_new, rows_of_unique, found)
        result = np.empty(count, np.int64)
        result[order] = np.repeat(answers, np.diff(starts, append=count))
        result[result == np.arange(first_row, first_row + count)] = -1
        return result

    def _find(self, hashes: Hashes) -> NDArray[np.int64]:
        """The first row of each hash, or -1. They are sorted."""
        found = np.full(hashes.size, -1, np.int64)
        self._young.find(hashes, found)
        for old, part in zip(self._old, _bucket_slices(hashes), strict=True):
            old.run.find(hashes[part], found[part])
        return found

    def _remember(self, hashes: Hashes, rows: Rows) -> None:
        young = self._young = self._young.merged_with(hashes, rows)
        # so a hash is moved about as often among the young as among the old, and least often in all
        if young.hashes.size > max(_FEW, (hashes.size * self._old_size) ** 0.5):
            for number, part in enumerate(_bucket_slices(young.hashes)):
                self._old[number].merge(young.hashes[part], young.rows[part])
            self._old_size += young.hashes.size
            self._young = _Run()


def _bucket_slices(hashes: Hashes) -> list[slice]:
    bounds = [0, *np.searchsorted(hashes, _BUCKET_STARTS).tolist(), hashes.size]
    return list(starmap(slice, pairwise(bounds)))
