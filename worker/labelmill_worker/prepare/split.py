"""Cutting rows into train, validation and test, with each label's share in each. Pure."""

from __future__ import annotations

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

    The cut is that of `train_test_split(…, stratify=strata, random_state=seed)`, twice: train from the rest, then the
    rest in two.
    """
    _, validation, test = split_sizes(len(strata), parts)
    everything = np.arange(len(strata), dtype=np.int64)
    train_rows, rest = _cut(everything, strata, validation + test, seed)
    validation_rows, test_rows = _cut(rest, strata, test, seed)
    splits = (train_rows, validation_rows, test_rows)
    _fill_gaps([rows for rows in splits if len(rows)], strata)
    return splits


def _cut(rows: Positions, strata: NDArray[np.int64], second: int, seed: int) -> tuple[Positions, Positions]:
    """Draw `second` of `rows`, from each stratum its share; both halves come out shuffled.

    The very draw of scikit-learn's `StratifiedShuffleSplit`, which takes five times the memory (it goes through lists
    of Python numbers) and refuses strata of one row.
    """
    nothing = np.zeros(0, np.int64)
    if second == 0:
        return rows, nothing
    if second == len(rows):
        return nothing, rows
    draw = np.random.RandomState(seed % SEEDS)
    strata_of_rows = strata[rows]
    counts = np.bincount(strata_of_rows)
    counts = counts[counts > 0]
    shares = _proportional(counts, len(rows) - second, draw)
    _proportional(counts - shares, second, draw)  # its result is what is left anyway; its draws must not be missing
    members = np.split(rows[np.argsort(strata_of_rows, kind="stable")], np.cumsum(counts)[:-1])
    del strata_of_rows  # from here on as few arrays as can be: they hold every row
    for rows_of_stratum in members:
        rows_of_stratum[:] = rows_of_stratum[draw.permutation(len(rows_of_stratum))]
    first_rows = np.concatenate([stratum[:share] for stratum, share in zip(members, shares, strict=True)])
    second_rows = np.concatenate([stratum[share:] for stratum, share in zip(members, shares, strict=True)])
    del members, rows_of_stratum
    draw.shuffle(first_rows)
    draw.shuffle(second_rows)
    return first_rows, second_rows


def _proportional(counts: NDArray[np.int64], wanted: int, draw: np.random.RandomState) -> NDArray[np.int64]:
    """Part `wanted` rows over strata in proportion to `counts`: largest remainders first, ties drawn."""
    exact = counts / counts.sum() * wanted
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = int(wanted - shares.sum())
    remainders = exact - shares
    for value in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        tied = np.flatnonzero(remainders == value)
        chosen = draw.choice(tied, size=min(len(tied), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares


def _fill_gaps(splits: list[Positions], strata: NDArray[np.int64]) -> None:
    """Swap rows so that each stratum with a row for every split has one in every split; sizes stay as they are."""
    size = int(strata.max()) + 1 if len(strata) else 0
    counts = np.stack([np.bincount(strata[rows], minlength=size) for rows in splits]) if splits else np.zeros((0, size))
    enough = counts.sum(axis=0) >= len(splits)
    for stratum in np.flatnonzero(enough & (counts == 0).any(axis=0)):
        for poor in np.flatnonzero(counts[:, stratum] == 0):
            rich = int(counts[:, stratum].argmax())
            other = int(counts[poor].argmax())
            if counts[rich, stratum] < 2 or counts[poor, other] < 2:
                continue
            give = np.flatnonzero(strata[splits[rich]] == stratum)[-1]
            take = np.flatnonzero(strata[splits[poor]] == other)[-1]
            splits[rich][give], splits[poor][take] = splits[poor][take], splits[rich][give]
            counts[rich, stratum] -= 1
            counts[poor, stratum] += 1
            counts[poor, other] -= 1
            counts[rich, other] += 1
