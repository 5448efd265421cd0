"""Numbers formatted for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from labelmill.contracts.amounts import written


def count(number: int, what: str) -> str:
    """`1,200 rows`, `1 row`."""
    return f"{number:,} {what}" if number != 1 else f"1 {what.removesuffix('s')}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            remainder = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {remainder} {part}" if remainder else "")
    return f"{whole} s"


def between(start: str | None, end: str | None) -> float | None:
    """Seconds between two times in ISO form."""
    if not start or not end:
        return None
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def money(cost: Mapping[str, Any] | None) -> str:
    """`0.0082 USD`; empty where it is not known."""
    if not cost or cost.get("amount") is None:
        return ""
    return f"{written(cost['amount'])} {cost.get('currency') or ''}".strip()


def share(value: float | None, interval: Any = None) -> str:
    """`0.823 [0.794, 0.852]`."""
    if value is None:
        return "not known"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def counts(numbers: Mapping[str, int]) -> str:
    """`empty text 8, request refused 2`; the largest first."""
    most_first = sorted(numbers.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in most_first if number)
