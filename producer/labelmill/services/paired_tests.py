"""Whether models that classified the same rows differ: tests that hold for many models at once. How large a difference
the rows still allow is in `core/paired_loss.py`. Pure.

The best of many equal models is the luckiest, so tests of the others against it call too many of them worse. Here every
pair of models is tested, and the p-values are corrected for all pairs (Holm, 1979): whichever model turns out to be the
best, the chance that any equal one is called worse is at most the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 1_000  #: Discordant rows; beyond, the chi-square approximation differs in no digit that matters.

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
