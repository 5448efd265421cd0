"""Money as whole billionths of its currency, so that sums of many small amounts are exact. Pure."""

from __future__ import annotations

import math

_NANOS = 1_000_000_000


def nanos(amount: float) -> int:
    """The nearest number of billionths."""
    return round(amount * _NANOS)


def nanos_at_least(amount: float) -> int:
    """A bound: never less than the amount."""
    return math.ceil(amount * _NANOS)


def amount_of(count: int) -> float:
    """The amount that so many billionths are."""
    return count / _NANOS
