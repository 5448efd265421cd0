"""Amounts of money as people read them."""

from __future__ import annotations

from decimal import Decimal


def written(amount: float) -> str:
    """Four digits that count, never with an exponent: `0.0082`, `0.0000016`, `1250`."""
    return f"{Decimal(f'{amount:.4g}'):f}"
