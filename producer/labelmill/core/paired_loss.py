"""How much accuracy one of two ways to answer the same rows may lose, by an upper bound that holds with a given chance.
Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

_HALVINGS = 50


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


def rows_to_show(loss: float, level: float) -> int:
    """How many rows it takes to show that no more than `loss` is lost, where both are right and wrong in the same."""
    deviations = NormalDist().inv_cdf(1 - min(level, 0.5))
    return math.ceil(deviations**2 * (1 - loss) / loss)
