"""F1 in its averages, from counts of labels. Pure; the numbers are scikit-learn's (`zero_division=0`).

Evaluations, the tuning of thresholds and the check of a fitted head all count with these functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]


def counts(real: NDArray[np.bool_], given: NDArray[np.bool_]) -> tuple[Counts, Counts, Counts]:
    """Of indicator matrices (rows, labels), for each label: rows that have it and were given it, have it, were
    given it."""
    hits, present, answered = (one.sum(axis=0).astype(float) for one in (real & given, real, given))
    return hits, present, answered


def f1_of(hits: Any, real: Any, given: Any) -> Counts:
    """F1 from counts, element by element: 0 where nothing is real and nothing is given."""
    return _ratio(2 * np.asarray(hits), np.add(real, given))


def averages(hits: Counts, real: Counts, given: Counts, *, present_only: bool) -> dict[str, Counts]:
    """Macro, weighted and micro F1 from counts whose last axis is the labels: rows with the label that were given it,
    with the label, given it.

    `present_only`: the macro average is over labels that occur in truth or answers, as scikit-learn takes them of
    single-label arrays; of indicator matrices it takes every column.
    """
    total = real + given
    f1 = f1_of(hits, real, given)
    counted = (total > 0).sum(axis=-1) if present_only else np.full(total.shape[:-1], total.shape[-1])
    support = real.sum(axis=-1)
    return {
        "macro_f1": _ratio(f1.sum(axis=-1), counted),
        "weighted_f1": _ratio((f1 * real).sum(axis=-1), support),
        "micro_f1": _ratio(2 * hits.sum(axis=-1), total.sum(axis=-1)),
    }


def micro_f1_of_every_label(real: Counts, rows: int) -> float:
    """What giving every label to every row reaches: a model that is not better is worth nothing. `real`: rows with each
    label."""
    return float(_ratio(2 * real.sum(), real.sum() + rows * len(real)))


def _ratio(above: Any, below: Any) -> Counts:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    found: Counts = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


def per_label(names: list[str], hits: Counts, real: Counts, given: Counts) -> dict[str, dict[str, float]]:
    """`{label: {"precision", "recall", "f1", "support"}}`, in the alphabet's order."""
    precision, recall = _ratio(hits, given), _ratio(hits, real)
    f1 = f1_of(hits, real, given)
    return {
        names[at]: {
            "precision": float(precision[at]),
            "recall": float(recall[at]),
            "f1": float(f1[at]),
            "support": int(real[at]),
        }
        for at in sorted(range(len(names)), key=names.__getitem__)
    }
