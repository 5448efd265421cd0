"""From which score on a label of a multi-label target holds: tuned so that its F1 is best. Pure.

Nothing is assumed of the scores: they may be independent probabilities or sum to one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import Target
from labelmill_worker.evaluate.f1 import f1_of

MIN_POSITIVES = 20  #: A label with fewer rows gets the threshold that suits all labels together.
_FALLBACK = 0.5

Scores = NDArray[np.float32]
Truth = NDArray[np.bool_]


def tune_thresholds(scores: Scores, truth: Truth, target: Target) -> dict[str, float]:
    """label → threshold, from `scores` and `truth` (rows, labels). Labels whose rows are too few to tell share one."""
    shared = best_threshold(scores.ravel(), truth.ravel())
    shared = _FALLBACK if shared is None else shared
    found: dict[str, float] = {}
    for number, label in enumerate(target.labels):
        positives = int(truth[:, number].sum())
        own = best_threshold(scores[:, number], truth[:, number]) if positives >= MIN_POSITIVES else None
        found[label] = round(shared if own is None else own, 6)
    return found


def best_threshold(scores: Scores, truth: Truth) -> float | None:
    """The threshold with the best F1, midway between two scores that occur. None: no row has the label, or all do."""
    if not truth.any() or truth.all():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), np.cumsum(truth[order])
    taken = np.arange(1, len(ranked) + 1)
    # where the score does not fall no threshold can part two rows
    last_of_score = np.append(ranked[1:] < ranked[:-1], True)
    f1 = np.where(last_of_score, f1_of(hits, truth.sum(), taken), -1.0)
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
