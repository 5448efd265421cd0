"""From which score on a label of a multi-label target holds. Pure.

Nothing is assumed of the scores: they may be independent probabilities or sum to one. What suits few rows best by luck
suits others badly, so a label's own threshold is drawn towards the one that suits all labels together, the more the
fewer rows have the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import Target
from labelmill.contracts.specs import Aim

_FALLBACK = 0.5

Scores = NDArray[np.float32]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class _Rule:
    """`beta`: how many times recall counts as much as precision. `half`: rows with a label from which on its own
    threshold weighs as much as the shared one."""

    beta: float
    half: int


#: micro: the best F1 of all decisions. macro: every label counts alike, so that rare ones get more of their own.
#: precision: labels that are given are right more often, and fewer are given.
_RULES: dict[Aim, _Rule] = {"micro": _Rule(1.0, 30), "macro": _Rule(1.0, 3), "precision": _Rule(0.5, 30)}


def tune_thresholds(scores: Scores, truth: Truth, target: Target, aim: Aim = "micro") -> dict[str, float]:
    """label → threshold, from `scores` and `truth` (rows, labels)."""
    rule = _RULES[aim]
    shared = best_threshold(scores.ravel(), truth.ravel(), rule.beta)
    shared = _FALLBACK if shared is None else shared
    found: dict[str, float] = {}
    for number, label in enumerate(target.labels):
        own = best_threshold(scores[:, number], truth[:, number], rule.beta)
        positives = int(truth[:, number].sum())
        weight = 0.0 if own is None else positives / (positives + rule.half)
        found[label] = round(weight * (own or 0.0) + (1 - weight) * shared, 6)
    return found


def best_threshold(scores: Scores, truth: Truth, beta: float = 1.0) -> float | None:
    """The threshold with the best F-measure, midway between two scores that occur. None: no row has the label, or all
    do."""
    if not truth.any() or truth.all():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), np.cumsum(truth[order])
    taken = np.arange(1, len(ranked) + 1)
    # where the score does not fall no threshold can part two rows
    last_of_score = np.append(ranked[1:] < ranked[:-1], True)
    measure = (1 + beta**2) * hits / (beta**2 * truth.sum() + taken)
    best = int(np.where(last_of_score, measure, -1.0).argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
