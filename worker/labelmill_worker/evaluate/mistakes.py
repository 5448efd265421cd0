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
_MIDDLE = 0.5  #: A score within this of the truth is on the right side.

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


class WrongPairs:
    """Of a multi-label target: the pairs of row and label whose score is on the wrong side of the middle, as blocks
    come. All of them are kept, in 16 bytes each, so that rows can be counted at the end."""

    def __init__(self) -> None:
        self._gaps: list[Floats] = []
        self._rows: list[NDArray[np.int32]] = []
        self._labels: list[NDArray[np.int32]] = []

    def add(self, at: NDArray[np.int64], scores: Scores, present: NDArray[np.bool_]) -> None:
        """Add the scores (rows, labels) of rows, and which labels they have."""
        gaps = np.abs(scores - present)
        rows, labels = np.nonzero(gaps > _MIDDLE)
        self._gaps.append(gaps[rows, labels])
        self._rows.append(at[rows].astype(np.int32))
        self._labels.append(labels.astype(np.int32))

    def cases(self, truth: Truth, present: NDArray[np.bool_], usual: tuple[Floats, Floats]) -> dict[str, Any]:
        """`mistakes`, `suspects` and `suspected`: how many rows have a doubtful label. `usual`: each label's mean score
        in rows with and without it."""
        if not self._gaps:
            return {"mistakes": [], "suspects": [], "suspected": 0}
        gaps, rows, labels = np.concatenate(self._gaps), np.concatenate(self._rows), np.concatenate(self._labels)
        has = present[rows, labels]
        scores = np.where(has, 1 - gaps, gaps)
        doubtful = np.where(has, scores <= usual[1][labels], scores >= usual[0][labels])

        def farthest(chosen: NDArray[np.int64]) -> list[Case]:
            order = chosen[np.argsort(-gaps[chosen], kind="stable")[:SHOWN]]
            return [_pair(truth, present, int(rows[at]), int(labels[at]), float(gaps[at])) for at in order]

        suspected = np.flatnonzero(doubtful)
        return {
            "mistakes": farthest(np.arange(len(gaps))),
            "suspects": farthest(suspected),
            "suspected": len(np.unique(rows[suspected])),
        }


def _pair(truth: Truth, present: NDArray[np.bool_], at: int, label: int, gap: float) -> Case:
    name, has = truth.names[label], bool(present[at, label])
    return {
        "row": int(truth.rows[at]),
        "label": name if has else f"not {name}",
        "predicted": f"not {name}" if has else name,
        "score": gap,
        "label_score": 1 - gap,
    }
