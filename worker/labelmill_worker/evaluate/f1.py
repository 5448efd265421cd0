"""F1 in its averages, from counts of labels. Pure; the numbers are scikit-learn's (`zero_division=0`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]


def averages(hits: Counts, real: Counts, given: Counts, *, present_only: bool) -> dict[str, Counts]:
    """Macro, weighted and micro F1 from counts whose last axis is the labels: rows with the label that were given it,
    with the label, given it.

    `present_only`: the macro average is over labels that occur in truth or answers, as scikit-learn takes them of
    single-label arrays; of indicator matrices it takes every column.
    """
    total = real + given
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    counted = (total > 0).sum(axis=-1) if present_only else np.full(total.shape[:-1], total.shape[-1])
    support = real.sum(axis=-1)
    return {
        "macro_f1": _ratio(f1.sum(axis=-1), counted),
        "weighted_f1": _ratio((f1 * real).sum(axis=-1), support),
        "micro_f1": _ratio(2 * hits.sum(axis=-1), total.sum(axis=-1)),
    }


def _ratio(above: Any, below: Any) -> Counts:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    found: Counts = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


def per_label(names: list[str], hits: Counts, real: Counts, given: Counts) -> dict[str, dict[str, float]]:
    """`{label: {"precision", "recall", "f1", "support"}}`, in the alphabet's order."""
    precision, recall = _ratio(hits, given), _ratio(hits, real)
    f1 = _ratio(2 * hits, real + given)
    return {
        names[at]: {
            "precision": float(precision[at]), "recall": float(recall[at]), "f1": float(f1[at]),
            "support": int(real[at]),
        }
        for at in sorted(range(len(names)), key=names.__getitem__)
    }  # fmt: skip
