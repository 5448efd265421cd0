"""How many of a target's rows were answered, and how many of them rightly: the same for every kind of target. Pure."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from labelmill_worker.evaluate.truth import Truth


def row_counts(correct: NDArray[Any], scored: NDArray[Any], answered: NDArray[Any]) -> dict[str, Any]:
    """Counts of rows and the share of right answers, from three columns of booleans: the rows that were labelled right,
    that have scores, and that were labelled at all. A row with scores and no label abstained; one without failed."""
    return {
        "accuracy": float(correct.mean()),
        "rows": len(correct),
        "answered": int(answered.sum()),
        "abstained": int((scored & ~answered).sum()),
        "failed": int((~scored).sum()),
        "unanswered": int((~answered).sum()),
        "accuracy_answered": float(correct[answered].mean()) if answered.any() else None,
    }


def unfamiliar_labels(truth: Truth, real: NDArray[Any]) -> dict[str, Any]:
    """Labels that only one side knows: `unknown_labels` of the dataset, with their rows, and `absent_labels` of the
    model. `real` holds the rows of each of the truth's names."""
    known = len(truth.target.labels)
    return {
        "unknown_labels": {name: int(real[at]) for at, name in enumerate(truth.names) if at >= known},
        "absent_labels": sorted(name for at, name in enumerate(truth.names[:known]) if not real[at]),
    }
