"""Confidence intervals of proportions. Pure."""

from __future__ import annotations

from math import sqrt

NORMAL_95 = 1.959963984540054  #: Standard deviations on either side that hold 95 % of a normal distribution.


def wilson_interval(share: float, rows: float, deviations: float = NORMAL_95) -> list[float]:
    """Wilson's score interval `[low, high]` of a share of `rows` (which may be an effective number, with a fraction).

    It holds near 0 and 1 too, where resampled rows hardly differ. Source: Wilson, 1927; Brown, Cai and DasGupta, 2001.
    """
    if rows <= 0:
        return [0.0, 1.0]
    squared = deviations**2 / rows
    middle = share + squared / 2
    spread = deviations * sqrt(max(0.0, share * (1 - share)) / rows + squared / (4 * rows))
    low, high = (middle - spread) / (1 + squared), (middle + spread) / (1 + squared)
    # at a share of 0 or 1 rounding would leave the share itself out
    return [0.0 if share <= 0 else low, 1.0 if share >= 1 else high]
