"""Cutting rows into train, validation and test, with each label's share in each. Pure."""

from __future__ import annotations

import importlib
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.errors import InvalidInput
from labelmill_worker.prepare.selection import SEEDS

SPLITS = ("train", "validation", "test")
Positions = NDArray[np.int64]


def split_sizes(rows: int, parts: tuple[float, float, float]) -> tuple[int, int, int]:
    """Rows of each split; they sum to `rows`. What does not divide goes to the later split, as in scikit-learn."""
    train, validation, test = (Fraction(str(part)) for part in parts)
    total = train + validation + test
    if min(train, validation, test) < 0 or not total:
        raise InvalidInput("the parts of a split must not be negative, nor all 0")
    rest = math.ceil(rows * (validation + test) / total)
    last = math.ceil(rest * test / (validation + test)) if validation + test else 0
    return rows - rest, rest - last, last


def stratified_split(
    strata: NDArray[np.int64], parts: tuple[float, float, float], seed: int
) -> tuple[Positions, Positions, Positions]:
    """Positions in `strata` of each split. Every stratum gets its share of each, and one row at least if it has enough.

    Where it can, the cut is `train_test_split(…, stratify=strata, random_state=seed)` twice: first train from the
    rest, then the rest in two.
    """
    _, validation, test = split_sizes(len(strata), parts)
    everything = np.arange(len(strata), dtype=np.int64)
    train_rows, rest = _cut(everything, strata, validation + test, seed)
    validation_rows, test_rows = _cut(rest, strata, test, seed)
    found = (train_rows, validation_rows, test_rows)
    _fill_gaps([rows for rows in found if len(rows)], strata)
    return found


def _cut(rows: Positions, strata: NDArray[np.int64], second: int, seed: int) -> tuple[Positions, Positions]:
    nothing = np.zeros(0, np.int64)
    if second == 0:
        return rows, nothing
    if second == len(rows):
        return nothing, rows
    train_test_split = importlib.import_module("sklearn.model_selection").train_test_split
    groups = _merge_singles(strata[rows])
    many = len(np.unique(groups))
    feasible = groups.size and min(second, len(rows) - second) >= many and np.bincount(groups)[np.unique(groups)].min() > 1
    first_rows, second_rows = train_test_split(
        rows, test_size=second, random_state=seed % SEEDS, stratify=groups if feasible else None
    )
    # a copy, for gaps are filled in place
    return np.array(first_rows, np.int64), np.array(second_rows, np.int64)


def _merge_singles(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """Strata of one row cannot be cut: they are balanced together."""
    lonely = np.bincount(strata)[strata] < 2  # noqa: PLR2004 - one on each side
    if not lonely.any():
        return strata
    together = strata.max() + 1 if lonely.sum() > 1 else np.bincount(strata).argmax()
    return np.where(lonely, together, strata)


def _fill_gaps(splits: list[Positions], strata: NDArray[np.int64]) -> None:
    """Swap rows so that each stratum with a row for every split has one in every split; sizes stay as they are."""
    size = int(strata.max()) + 1 if len(strata) else 0
    counts = np.stack([np.bincount(strata[rows], minlength=size) for rows in splits]) if splits else np.zeros((0, size))
    enough = counts.sum(axis=0) >= len(splits)
    for stratum in np.flatnonzero(enough & (counts == 0).any(axis=0)):
        for poor in np.flatnonzero(counts[:, stratum] == 0):
            rich = int(counts[:, stratum].argmax())
            other = int(counts[poor].argmax())
            if counts[rich, stratum] < 2 or counts[poor, other] < 2:  # noqa: PLR2004 - one must stay behind
                continue
            give = np.flatnonzero(strata[splits[rich]] == stratum)[-1]
            take = np.flatnonzero(strata[splits[poor]] == other)[-1]
            splits[rich][give], splits[poor][take] = splits[poor][take], splits[rich][give]
            counts[rich, stratum] -= 1
            counts[poor, stratum] += 1
            counts[poor, other] -= 1
            counts[rich, other] += 1
