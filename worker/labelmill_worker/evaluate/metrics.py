"""How good predictions are; the numbers are scikit-learn's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

ABSTAINED = "(none)"  #: Stands for the label of a row that abstained or failed: always wrong.


def single_label_metrics(truth: Sequence[str], predicted: Sequence[str | None]) -> dict[str, Any]:
    """`accuracy`, `macro_f1`, `weighted_f1`, `per_label`, `confusion` of one single-label target.

    Averages are over the labels of `truth` and the predicted ones. `confusion` is `{truth: {predicted: rows}}`.
    """
    answers = [label if label is not None else ABSTAINED for label in predicted]
    labels = sorted(set(truth) | set(answers))
    scored = [label for label in labels if label != ABSTAINED]
    matrix = confusion_matrix(truth, answers, labels=labels)
    confusion = {
        label: {other: int(count) for other, count in zip(labels, row, strict=True) if count}
        for label, row in zip(labels, matrix, strict=True)
        if row.any()
    }
    return {
        "accuracy": float(accuracy_score(truth, answers)),
        "macro_f1": float(f1_score(truth, answers, labels=scored, average="macro", zero_division=0)),
        "weighted_f1": float(f1_score(truth, answers, labels=scored, average="weighted", zero_division=0)),
        "per_label": _per_label(truth, answers, scored),
        "confusion": confusion,
        "rows": len(truth),
        "unanswered": sum(label is None for label in predicted),
    }


def multi_label_metrics(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str] | None], labels: Sequence[str]
) -> dict[str, Any]:
    """The same for a multi-label target: `accuracy` is subset accuracy, `confusion` holds each label's
    `{true_positive, false_positive, false_negative, true_negative}`."""
    names = sorted(set(labels) | {label for row in truth for label in row})
    real, answers = _indicators(truth, names), _indicators([row or () for row in predicted], names)
    cells = ("true_negative", "false_positive", "false_negative", "true_positive")
    return {
        "accuracy": float(accuracy_score(real, answers)),
        "macro_f1": float(f1_score(real, answers, average="macro", zero_division=0)),
        "micro_f1": float(f1_score(real, answers, average="micro", zero_division=0)),
        "weighted_f1": float(f1_score(real, answers, average="weighted", zero_division=0)),
        "per_label": _per_label(real, answers, list(range(len(names))), names),
        "confusion": {
            name: dict(zip(cells, map(int, matrix.ravel()), strict=True))
            for name, matrix in zip(names, multilabel_confusion_matrix(real, answers), strict=True)
        },
        "rows": len(truth),
        "unanswered": sum(row is None for row in predicted),
    }


def _indicators(rows: Sequence[Sequence[str]], names: Sequence[str]) -> Any:
    at = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(names)), dtype=np.int8)
    for number, row in enumerate(rows):
        for label in row:
            matrix[number, at[label]] = 1
    return matrix


def _per_label(truth: Any, answers: Any, labels: Sequence[Any], names: Sequence[str] | None = None) -> dict[str, Any]:
    columns = precision_recall_fscore_support(truth, answers, labels=labels, zero_division=0)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(names or labels, *columns, strict=True)
    }
