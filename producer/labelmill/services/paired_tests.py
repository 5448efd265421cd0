"""Whether models that classified the same rows differ: tests that hold for many models at once, and how large a
difference the rows still allow. Pure.

The best of many equal models is the luckiest, so tests of the others against it call too many of them worse. Here every
pair of models is tested, and the p-values are corrected for all pairs (Holm, 1979): whichever model turns out to be the
best, the chance that any equal one is called worse is at most the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 1_000  #: Discordant rows; beyond, the chi-square approximation differs in no digit that matters.
_HALVINGS = 50

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """How two models differ on the same rows."""

    only_first: int  #: Rows that only the first got right.
    only_second: int
    p_value: float
    test: str  #: `exact` (binomial, two-sided) or `chi2` (with continuity correction).


def mcnemar(first: Bools, second: Bools) -> McNemar:
    """McNemar's test of two models' right rows. No discordant row: p = 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    if discordant <= EXACT_UP_TO:
        p_value = min(1.0, 2 * _ways(discordant, min(only_first, only_second)) / 2**discordant)
        return McNemar(only_first, only_second, p_value, "exact")
    statistic = (abs(only_first - only_second) - 1) ** 2 / discordant
    return McNemar(only_first, only_second, math.erfc(math.sqrt(max(0.0, statistic) / 2)), "chi2")


def _ways(rows: int, at_most: int) -> int:
    """The number of subsets of the rows with at most the given size."""
    ways = total = 1
    for chosen in range(at_most):
        ways = ways * (rows - chosen) // (chosen + 1)
        total += ways
    return total


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given: reject those below the level, and the chance of any false
    rejection is at most the level, however the tests depend on each other."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def against_each_other(rights: Sequence[Bools]) -> dict[tuple[int, int], tuple[McNemar, float]]:
    """(first, second) → McNemar's test of the two, and its p-value adjusted for all pairs; in both orders."""
    pairs = list(combinations(range(len(rights)), 2))
    tests = [mcnemar(rights[first], rights[second]) for first, second in pairs]
    results: dict[tuple[int, int], tuple[McNemar, float]] = {}
    for (first, second), test, adjusted in zip(
        pairs, tests, holm([mcnemar_test.p_value for mcnemar_test in tests]), strict=True
    ):
        results[first, second] = test, adjusted
        turned = McNemar(test.only_second, test.only_first, test.p_value, test.test)
        results[second, first] = turned, adjusted
    return results


def largest_loss(only_other: int, only_this: int, rows: int, level: float) -> float:
    """By how much a model may be right less often than another, as a share of rows, when its only ones right are
    `only_this` of `rows`: the upper bound that holds with a chance of 1 - `level`.

    The score bound of Tango (1998) for a difference of paired shares; it holds with few discordant rows and with none.
    """
    if not rows or level <= 0:
        return 1.0
    deviations = NormalDist().inv_cdf(1 - min(level, 0.5))
    low, high = (only_other - only_this) / rows, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _tango(only_other, only_this, rows, middle) > -deviations:
            low = middle
        else:
            high = middle
    return high


def _tango(only_other: int, only_this: int, rows: int, loss: float) -> float:
    """How many standard deviations the difference seen lies above `loss`."""
    a = 2 * rows
    b = -only_other - only_this + (2 * rows - only_other + only_this) * loss
    c = -only_this * loss * (1 - loss)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = rows * (2 * share + loss * (1 - loss))
    difference = only_other - only_this - rows * loss
    return (
        difference / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, difference) if difference else 0.0
    )
