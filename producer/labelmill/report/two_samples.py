"""Whether two samples of rows have the same distribution: permutation tests, which are valid for any number of rows
and kinds. Pure.

All rows are put together, and samples as large as the smaller one are drawn from them again and again: the p-value is
how often a drawn one is as unlike the rest as the real one. Drawing stops early where it is plainly often (Besag and
Clifford, 1991).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_DRAWS, _MIN_DRAWS = 4_999, 999  #: Enough to resolve a p-value of 0.005.
_CELLS = 4_000_000  #: Numbers drawn at most.
_AT_ONCE = 250
_ENOUGH = 50  #: After this many drawn samples that differ as much as the real one no more are drawn.
_SEED = 0

Counts = NDArray[np.int64]
Statistic = Callable[[Counts], NDArray[np.float64]]
Draw = Callable[[np.random.Generator, int], Counts]


def labels_p_value(before: Sequence[int], now: Sequence[int]) -> float:
    """Of rows by label, each row with one: by the chi-squared statistic."""
    total, drawn_rows = np.add(before, now), min(sum(before), sum(now))
    expected = total * (drawn_rows / total.sum())

    def unlike(counts: Counts) -> NDArray[np.float64]:
        statistics: NDArray[np.float64] = (np.square(counts - expected) / np.maximum(total, 1)).sum(axis=1)
        return statistics

    return _p_value(_smaller(before, now), unlike, _drawn_rows(total, drawn_rows))


def label_sets_p_value(before: Sequence[int], rows_before: int, now: Sequence[int], rows_now: int) -> float:
    """Of rows with each label, where a row may have several: by the label that moved most.

    Labels are drawn as if they were independent. Where they are not, the largest move of the drawn ones is larger than
    that of real ones (Šidák, 1967), so the test calls fewer samples unlike, not more.
    """
    total, rows = np.add(before, now), rows_before + rows_now
    drawn_rows = min(rows_before, rows_now)
    expected, varies = total * (drawn_rows / rows), np.maximum(total * (rows - total), 1)

    def unlike(counts: Counts) -> NDArray[np.float64]:
        statistics: NDArray[np.float64] = (np.square(counts - expected) / varies).max(axis=1)
        return statistics

    def draw(rng: np.random.Generator, draws: int) -> Counts:
        return rng.hypergeometric(total, rows - total, drawn_rows, (draws, len(total)))

    real = np.asarray(before if rows_before <= rows_now else now, np.int64)
    return _p_value(real, unlike, draw)


def bins_p_value(before: Sequence[int], now: Sequence[int]) -> float:
    """Of rows in ordered bins: by the Anderson-Darling statistic, which sees a few rows at either end too."""
    total, drawn_rows = np.add(before, now), min(sum(before), sum(now))
    rows = int(total.sum())
    below = np.cumsum(total) / rows
    weight = np.divide(total, below * (1 - below), out=np.zeros(len(total)), where=(below > 0) & (below < 1))

    def unlike(counts: Counts) -> NDArray[np.float64]:
        gaps = np.cumsum(counts, axis=1) / drawn_rows - below
        statistics: NDArray[np.float64] = (np.square(gaps) * weight).sum(axis=1)
        return statistics

    return _p_value(_smaller(before, now), unlike, _drawn_rows(total, drawn_rows))


def _smaller(before: Sequence[int], now: Sequence[int]) -> Counts:
    return np.asarray(before if sum(before) <= sum(now) else now, np.int64)


def _drawn_rows(total: Counts, rows: int) -> Draw:
    return lambda rng, draws: rng.multivariate_hypergeometric(total, rows, size=draws)


def _p_value(real: Counts, unlike: Statistic, draw: Draw) -> float:
    rng = np.random.default_rng(_SEED)
    limit = float(unlike(real[None])[0]) * (1 - 1e-9)  # rounding must not part a sample from its equal
    most = min(_DRAWS, max(_MIN_DRAWS, _CELLS // len(real)))
    drawn = as_unlike = 0
    while drawn < most and as_unlike < _ENOUGH:
        draws = min(_AT_ONCE, most - drawn)
        as_unlike += int((unlike(draw(rng, draws)) >= limit).sum())
        drawn += draws
    return (as_unlike + 1) / (drawn + 1)
