"""Which texts of a stream repeat an earlier one, at 15 to 22 bytes a text.

Texts are compared by a 64-bit keyed hash (SipHash). Among ten million distinct texts the chance that any two collide is
3 in a million. Collisions cannot be constructed without the key, which is random: drawn when the process starts, or,
where PYTHONHASHSEED fixes that key, for each submission.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import concat
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 1 << 15
_LAST_ROW = (1 << 32) - 1
_FULL = 0.6  # of a table: with more, a free slot is far away


def seed_is_fixed() -> bool:
    """Whether the key of this process' hashes is fixed by the environment."""
    chosen = "" if sys.flags.ignore_environment else os.environ.get("PYTHONHASHSEED", "")
    return not sys.flags.hash_randomization or chosen not in ("", "random")


class DistinctTexts:
    """The set of all texts so far: a hash table with open addressing, in which thousands are looked up at once."""

    def __init__(self) -> None:
        # a secret prefix has the effect of a key; hashing takes half as long again
        self._secret = os.urandom(16).hex() if seed_is_fixed() else None
        self._hashes = np.empty(_FEW, np.int64)  # of every row so far
        self._slots = np.zeros(2 * _FEW, np.uint32)  # the row a hash was first seen in, from the last one; 0: free
        self._rows = 0
        self._distinct = 0

    def first_rows(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """For each of the next rows the earlier row with the same text, or -1.

        Call it with some ten thousand texts at a time.
        """
        count = len(texts)
        self._make_room(count)
        rows = np.arange(self._rows, self._rows + count)
        self._hashes[self._rows : self._rows + count] = np.fromiter(self._hashed(texts), np.int64, count)
        firsts = self._placed(rows)
        new = firsts == rows
        firsts[new] = -1
        self._rows += count
        self._distinct += int(np.count_nonzero(new))
        return firsts

    def _hashed(self, texts: Sequence[str]) -> Iterable[int]:
        return map(hash, texts if self._secret is None else map(concat, repeat(self._secret), texts))

    def _placed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row with the hash of each of `rows`: one that has a slot, or the first of them, which gets one."""
        slots, known = self._slots, self._hashes
        last = slots.size - 1
        firsts = np.empty(rows.size, np.int64)
        left = np.arange(rows.size)  # the indices of rows without a result yet
        hashes = known.take(rows)  # their hashes
        at = hashes & last  # the slots to probe for them
        step = 0  # grows by one each time: all slots of a power of two are probed, and clusters are soon left
        while left.size:
            step += 1
            taken = slots.take(at)
            free = np.flatnonzero(taken == 0)
            free_slots = at.take(free)
            # of several rows that probe a free slot the first one gets it
            np.maximum.at(slots, free_slots, (_LAST_ROW - rows.take(left.take(free))).astype(np.uint32))
            taken[free] = slots.take(free_slots)
            first_row = _LAST_ROW - taken.astype(np.int64)
            firsts[left] = first_row
            others = np.flatnonzero(known.take(first_row) != hashes)
            left, hashes, at = left.take(others), hashes.take(others), at.take(others) + step & last
        return firsts

    def _make_room(self, count: int) -> None:
        """For so many more texts."""
        if self._rows + count > self._hashes.size:
            hashes, self._hashes = self._hashes, _reserved(8 * (self._rows + count), np.int64)
            self._hashes[: self._rows] = hashes[: self._rows]
        slots_needed = int((self._distinct + count) / _FULL)
        if slots_needed > self._slots.size:
            slots, self._slots = self._slots, _reserved(1 << slots_needed.bit_length(), np.uint32)
            for part in np.array_split(slots, slots.size // _FEW):
                self._placed(_LAST_ROW - part[part > 0].astype(np.int64))


def _reserved(count: int, kind: type[np.generic]) -> NDArray[Any]:
    """Zeros whose pages are allocated when they are written, and returned to the system with the array. On the heap,
    arrays that are replaced by larger ones would leave unused gaps, half as large as the live data."""
    return np.frombuffer(mmap.mmap(-1, count * np.dtype(kind).itemsize), kind)
