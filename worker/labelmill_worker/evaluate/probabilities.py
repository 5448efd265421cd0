"""How well scores keep their word: log-loss, Brier score, calibration, coverage. Pure.

Log-loss clips as scikit-learn does for float64: a score of 0 counts as 2.2e-16, so an answer that was sure and wrong
costs 36.04.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  #: Of the reliability diagram and the calibration error, equally wide.
HISTOGRAM_BINS = 20
STEPS = 100  #: Of the coverage curve.
ECE_DRAWS, ECE_LEVEL, ECE_SEED = 2_000, 0.99, 0  #: Of `Reliability.error_by_luck`.
EPSILON = float(np.finfo(np.float64).eps)

#: The measures of scores where there are none, or where they are no probabilities.
UNMEASURED: Mapping[str, None] = {"log_loss": None, "brier": None, "ece": None, "ece_by_luck": None}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def losses_of(probability_of_truth: Floats) -> Floats:
    """The log-loss of each row, from the score that its true label got."""
    losses: Floats = -np.log(np.clip(probability_of_truth, EPSILON, 1 - EPSILON))
    return losses


@dataclass
class Reliability:
    """Confidences against how often they were right, in `BINS` bins: (0, 1/15], (1/15, 2/15], …; the first holds 0 too.

    The bins are those of scikit-learn's `calibration_curve`.
    """

    count: Floats = field(default_factory=lambda: np.zeros(BINS))
    confidence: Floats = field(default_factory=lambda: np.zeros(BINS))
    right: Floats = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: Floats, right: Bools) -> None:
        """Add rows, or pairs of row and label."""
        edges = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
        at = np.searchsorted(edges, confidence)
        self.count += np.bincount(at, minlength=BINS)
        self.confidence += np.bincount(at, confidence, minlength=BINS)
        self.right += np.bincount(at, right.astype(np.float64), minlength=BINS)

    def error(self) -> float | None:
        """The expected calibration error: the mean gap between confidence and accuracy, weighted by rows."""
        total = self.count.sum()
        return float(np.abs(self.confidence - self.right).sum() / total) if total else None

    def error_by_luck(self) -> float | None:
        """What the error stays below in 99 of 100 samples of so many rows with these scores, were each score exactly
        how often it is right. By simulation, of each bin's rows at its mean score."""
        counts = self.count.astype(np.int64)
        filled, total = counts > 0, counts.sum()
        if not total:
            return None
        mean = np.clip(self.confidence[filled] / counts[filled], 0, 1)
        right = np.random.default_rng(ECE_SEED).binomial(counts[filled], mean, (ECE_DRAWS, int(filled.sum())))
        errors = np.abs(right - self.confidence[filled]).sum(axis=1) / total
        return float(np.quantile(errors, ECE_LEVEL))

    def points(self) -> list[dict[str, float]]:
        """`[{"confidence", "accuracy", "rows"}]`, of bins that hold any."""
        return [
            {"confidence": float(c / n), "accuracy": float(r / n), "rows": int(n)}
            for n, c, r in zip(self.count, self.confidence, self.right, strict=True)
            if n
        ]


def coverage_curve(best: Floats, right: Bools, rows: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """For each threshold the share of `rows` whose best score reaches it, and how many of those are right.

    `best` and `right` are of rows with scores; `accuracy` is None where no row is left.
    """
    order = np.argsort(best, kind="stable")
    ranked, hits = best[order], np.cumsum(right[order][::-1])[::-1]
    curve = []
    for step in range(steps + 1):
        threshold = step / steps
        first = int(np.searchsorted(ranked, threshold))
        left = len(ranked) - first
        accuracy = float(hits[first] / left) if left else None
        curve.append({"threshold": threshold, "coverage": left / rows if rows else 0.0, "accuracy": accuracy})
    return curve


def histogram(best: Floats) -> list[int]:
    """Rows by best score, in `HISTOGRAM_BINS` equally wide bins; 1 falls into the last."""
    at = np.clip((best * HISTOGRAM_BINS).astype(np.int64), 0, HISTOGRAM_BINS - 1)
    return [int(count) for count in np.bincount(at, minlength=HISTOGRAM_BINS)]
