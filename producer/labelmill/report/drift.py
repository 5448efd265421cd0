"""Whether a batch's labels are spread as they were when the model was measured. Pure.

The population stability index (PSI): sum of (p - q) ln(p / q) over labels. Samples of one population differ too, by
(labels - 1)(1/n + 1/m) on average and after a chi-squared distribution: an index within that says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt

from labelmill.report.parts import Tone

FEW_ROWS = 50
MODERATE, LARGE = 0.1, 0.25  #: The usual bounds of the index, beyond what luck makes.
_NORMAL_95 = 1.6448536269514722
_SMOOTHING = 0.5  # rows added to each label, so that one without rows has no infinite weight
_MOVED = 8


@dataclass(frozen=True)
class Drift:
    """`by_luck`: what the index stays below in 95 of 100 samples of the same texts. `moved`: the labels whose shares
    differ most: (label, share before, share now)."""

    psi: float
    by_luck: float
    verdict: str
    tone: Tone
    moved: list[tuple[str, float, float]]


def drift_between(before: Mapping[str, int], now: Mapping[str, int], split: str = "validation") -> Drift | None:
    """Compare counts by label; those before are of the model's `split`. None when either has too few rows."""
    labels = sorted(before.keys() | now.keys())
    rows_before, rows_now = sum(before.values()), sum(now.values())
    if min(rows_before, rows_now) < FEW_ROWS or len(labels) < 2:
        return None
    old, new = _shares(before, labels), _shares(now, labels)
    psi = sum((q - p) * log(q / p) for p, q in zip(old, new, strict=True))
    freedom, scale = len(labels) - 1, 1 / rows_before + 1 / rows_now
    by_luck, usual = _chi_squared_95(freedom) * scale, freedom * scale
    verdict, tone = _verdict(psi, psi - usual, by_luck, split)
    pairs = [(name, before.get(name, 0) / rows_before, now.get(name, 0) / rows_now) for name in labels]
    pairs.sort(key=lambda pair: -abs(pair[2] - pair[1]))
    return Drift(psi, by_luck, verdict, tone, pairs[:_MOVED])


def _shares(counts: Mapping[str, int], labels: list[str]) -> list[float]:
    total = sum(counts.values()) + _SMOOTHING * len(labels)
    return [(counts.get(label, 0) + _SMOOTHING) / total for label in labels]


def _chi_squared_95(freedom: int) -> float:
    """By Wilson and Hilferty: good to a percent from 3 degrees of freedom on, and to 3 % below."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + _NORMAL_95 * sqrt(part)) ** 3)


def _verdict(psi: float, beyond: float, by_luck: float, split: str) -> tuple[str, Tone]:
    if psi <= by_luck:
        return f"No drift: the labels are spread as in the {split} split, but for what luck makes.", "good"
    if beyond < MODERATE:
        return "Little drift: shares moved by more than luck, but not by much. Nothing needs doing.", "good"
    if beyond < LARGE:
        return (
            "Some drift: look at the labels that moved most. If the world changed so, all is well; if not, have a "
            "person label a sample of them."
        ), "warning"
    return (
        f"Strong drift: the labels are not spread as in the {split} split, so the accuracy measured there need not "
        "hold here. Have a person label a sample and evaluate on it before you rely on these labels."
    ), "bad"
