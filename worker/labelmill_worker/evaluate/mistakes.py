"""Rows that a person should check: confident mistakes, and labels that are probably wrong. Pure.

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
MOST = 100_000  #: Of suspects that are kept, the surest; a page shows fewer.
_DIGITS = 6
_TINY = 1e-30
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
    """`{"suspects": […], "suspected": how many, "all_suspects": […]}`: see `listed`."""
    real, size = truth.single(), len(truth.names)
    counts = np.bincount(real[scored], minlength=size)
    sums = np.bincount(real[scored], of_truth[scored], minlength=size)
    usual = np.divide(sums, counts, out=np.ones(size), where=counts > 0)
    doubtful = scored & (top != real) & (best >= usual[top]) & (of_truth < usual[real])
    suspected = np.flatnonzero(doubtful)
    # by how many times likelier the other label is: where the row's own has next to no score it is rarely right
    surest = suspected[np.argsort(of_truth[suspected] / np.maximum(best[suspected], _TINY), kind="stable")[:MOST]]
    cases = [_case(truth, at, top, best, of_truth) for at in surest.tolist()]
    return {"suspected": len(suspected), "suspects": cases[:SHOWN], "all_suspects": listed(cases)}


def listed(cases: list[Case]) -> list[tuple[int, str, str, float, float]]:
    """Cases for an export: row, label, the label that the model gives, its score, and the score of the row's label."""
    return [
        (
            case["row"],
            case["label"],
            case["predicted"],
            round(case["score"], _DIGITS),
            round(case["label_score"], _DIGITS),
        )
        for case in cases
    ]


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
    come. All of them are kept, in 17 bytes each, so that rows can be counted at the end."""

    def __init__(self) -> None:
        self._gaps: list[Floats] = []
        self._rows: list[NDArray[np.int32]] = []
        self._labels: list[NDArray[np.int32]] = []
        self._has: list[NDArray[np.bool_]] = []

    def add(self, at: NDArray[np.int64], scores: Scores, present: NDArray[np.bool_]) -> None:
        """Add the scores (rows, labels) of rows, and which labels they have."""
        gaps = np.abs(scores - present)
        rows, labels = np.nonzero(gaps > _MIDDLE)
        self._gaps.append(gaps[rows, labels])
        self._rows.append(at[rows].astype(np.int32))
        self._labels.append(labels.astype(np.int32))
        self._has.append(present[rows, labels])

    def cases(self, truth: Truth, usual: tuple[Floats, Floats]) -> dict[str, Any]:
        """`mistakes`, `suspects`, `all_suspects`, and `suspected`: how many rows have a doubtful label. `usual`: each
        label's mean score in rows with and without it."""
        if not self._gaps:
            return {"mistakes": [], "suspects": [], "suspected": 0, "all_suspects": []}
        gaps, rows, labels = np.concatenate(self._gaps), np.concatenate(self._rows), np.concatenate(self._labels)
        has = np.concatenate(self._has)
        scores = np.where(has, 1 - gaps, gaps)
        doubtful = np.where(has, scores <= usual[1][labels], scores >= usual[0][labels])

        def farthest(chosen: NDArray[np.int64], count: int) -> list[Case]:
            order = chosen[np.argsort(-gaps[chosen], kind="stable")[:count]]
            return [_pair(truth, int(rows[at]), int(labels[at]), float(gaps[at]), has=bool(has[at])) for at in order]

        suspected = np.flatnonzero(doubtful)
        cases = farthest(suspected, MOST)
        return {
            "mistakes": farthest(np.arange(len(gaps)), SHOWN),
            "suspects": cases[:SHOWN],
            "suspected": len(np.unique(rows[suspected])),
            "all_suspects": listed(cases),
        }


def _pair(truth: Truth, at: int, label: int, gap: float, *, has: bool) -> Case:
    name = truth.names[label]
    return {
        "row": int(truth.rows[at]),
        "label": name if has else f"not {name}",
        "predicted": f"not {name}" if has else name,
        "score": gap,
        "label_score": 1 - gap,
    }
