"""Rows worth a person's look: confident mistakes, and labels that are probably wrong. Pure.

Suspects follow confident learning (Northcutt et al., 2021): a row is one when the model gives another label a score at
least as high as that label's own rows get on average, and the row's label less than its own average.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.evaluate.scores import Scores
from labelmill_worker.evaluate.truth import Truth

SHOWN = 50

Floats = NDArray[np.float64]
Case = dict[str, Any]
"""`{"row", "label", "predicted", "score", "label_score"}`; texts are added when the report's rows are known."""


def confident_mistakes(
    truth: Truth, top: NDArray[np.int32], best: Floats, of_truth: Floats, scored: NDArray[np.bool_]
) -> list[Case]:
    """The rows whose wrong label has the highest score."""
    wrong = np.flatnonzero(scored & (top != truth.single()))
    worst = wrong[np.argsort(-best[wrong], kind="stable")[:SHOWN]]
    return [_case(truth, at, top, best, of_truth) for at in worst.tolist()]


def suspects(
    truth: Truth, top: NDArray[np.int32], best: Floats, of_truth: Floats, scored: NDArray[np.bool_]
) -> dict[str, Any]:
    """`{"suspects": […], "suspected": how many}`."""
    real, size = truth.single(), len(truth.names)
    counts = np.bincount(real[scored], minlength=size)
    sums = np.bincount(real[scored], of_truth[scored], minlength=size)
    usual = np.divide(sums, counts, out=np.ones(size), where=counts > 0)
    doubtful = scored & (top != real) & (best >= usual[top]) & (of_truth < usual[real])
    found = np.flatnonzero(doubtful)
    surest = found[np.argsort(of_truth[found] - best[found], kind="stable")[:SHOWN]]
    return {
        "suspected": len(found),
        "suspects": [_case(truth, at, top, best, of_truth) for at in surest.tolist()],
    }


def _case(truth: Truth, at: int, top: NDArray[np.int32], best: Floats, of_truth: Floats) -> Case:
    return {
        "row": int(truth.rows[at]),
        "label": truth.names[truth.single()[at]],
        "predicted": truth.names[top[at]],
        "score": float(best[at]),
        "label_score": float(of_truth[at]),
    }


class FarthestPairs:
    """Of a multi-label target: the pairs of row and label whose score is farthest from the truth, as blocks come."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._gaps, self._pairs = np.empty(0), np.empty((0, 2), np.int64)
        self.least = 0.5  #: A gap that is smaller is no error at the middle.

    def add(self, at: NDArray[np.int64], scores: Scores, present: NDArray[np.bool_]) -> None:
        """Add the scores (rows, labels) of rows, and which labels they have."""
        gaps = np.abs(scores - present)
        rows, labels = np.nonzero(gaps > self.least)
        self._gaps = np.concatenate([self._gaps, gaps[rows, labels]])
        self._pairs = np.concatenate([self._pairs, np.stack([at[rows], labels], axis=1)])
        if len(self._gaps) > self._keep:
            best = np.argsort(-self._gaps, kind="stable")[: self._keep]
            self._gaps, self._pairs = self._gaps[best], self._pairs[best]
            self.least = float(self._gaps[-1])

    def cases(self, truth: Truth, present: NDArray[np.bool_], usual: tuple[Floats, Floats]) -> dict[str, Any]:
        """`mistakes`, `suspects` and `suspected`; `usual`: each label's mean score in rows with and without it."""
        order = np.argsort(-self._gaps, kind="stable")
        mistakes: list[Case] = []
        doubtful: list[Case] = []
        for gap, (at, label) in zip(self._gaps[order].tolist(), self._pairs[order].tolist(), strict=True):
            has = bool(present[at, label])
            score = 1 - gap if has else gap
            case = {
                "row": int(truth.rows[at]),
                "label": truth.names[label] if has else f"not {truth.names[label]}",
                "predicted": f"not {truth.names[label]}" if has else truth.names[label],
                "score": gap,
                "label_score": 1 - gap,
            }
            mistakes.append(case)
            if score <= usual[1][label] if has else score >= usual[0][label]:
                doubtful.append(case)
        return {"mistakes": mistakes[:SHOWN], "suspects": doubtful[:SHOWN], "suspected": len(doubtful)}
