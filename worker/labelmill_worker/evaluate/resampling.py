"""How far metrics may be off by the luck of the rows: Wilson's interval, by bootstrap where a metric is no share. Pure.

Rows with the same truth and the same answer are alike, so a resample of n rows is one draw from a multinomial over the
distinct cases: the distribution is that of drawing rows, the work depends on the cases and not on the rows.

The quantiles of resamples are too narrow near 0 and 1, and where labels are rare they lie to one side: a resample lacks
some of the labels that the rows have, as the rows lack some that there are. So an F1 gets the Wilson interval of as
many rows as would vary like its resamples; what resamples are off by, on average, counts as variation. So does that
the few rows of a label may all be right by luck, which no resample of them shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelmill.core.proportions import wilson_interval

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
FEW_ROWS = 5  #: A label with fewer rows tells little of how well it is found.
FEW_LABELS = 0.15  #: The share of such labels up to which the interval of macro F1 was found to hold.
_FEW = 200  #: Resamples where a thousand would take minutes.
_WORK = 2e10
_CELLS = 2_000_000  # numbers held at a time

Counts = NDArray[np.float64]
Statistics = Callable[[Counts], dict[str, Counts]]


class LabelCounts(NamedTuple):
    """Of each label, those that these rows lack too: rows with it that were given it, with it, given it."""

    hits: Counts
    real: Counts
    given: Counts


def intervals(case_rows: NDArray[np.int64], labels: LabelCounts, statistics: Statistics) -> dict[str, Any]:
    """`{"accuracy": [low, high], …, "withheld": {}, "level", "resamples", "seed"}`.

    `case_rows`: rows of each distinct case. `statistics`: counts (resamples, cases) → for each metric its values. A
    metric whose interval would not hold has None, and the reason under `withheld`.
    """
    rows = int(case_rows.sum())
    observed = {name: float(values[0]) for name, values in statistics(case_rows[None].astype(np.float64)).items()}
    resamples = RESAMPLES if len(case_rows) * len(labels.real) * RESAMPLES <= _WORK else _FEW
    drawn = _resampled({name for name in observed if name != "accuracy"}, case_rows, resamples, statistics)
    bounds: dict[str, Any] = {"accuracy": wilson_interval(observed["accuracy"], rows)}
    for name, values in drawn.items():
        unseen = _unseen_variance(labels, observed[name]) if name == "macro_f1" else 0.0
        bounds[name] = wilson_interval(observed[name], _rows_alike(observed[name], values, unseen, rows))
    withheld = {}
    few = int((labels.real < FEW_ROWS).sum())
    if few > FEW_LABELS * len(labels.real):
        bounds["macro_f1"] = None
        withheld["macro_f1"] = f"{few} of {len(labels.real)} labels have fewer than {FEW_ROWS} rows"
    return bounds | {"withheld": withheld, "level": LEVEL, "resamples": resamples, "seed": SEED}


def _resampled(
    names: set[str], case_rows: NDArray[np.int64], resamples: int, statistics: Statistics
) -> dict[str, Counts]:
    rows = int(case_rows.sum())
    rng = np.random.default_rng(SEED)
    at_once = max(1, min(resamples, _CELLS // len(case_rows)))
    parts: dict[str, list[Counts]] = {}
    for start in range(0, resamples, at_once):
        drawn = rng.multinomial(rows, case_rows / rows, size=min(at_once, resamples - start)).astype(np.float64)
        for name, values in statistics(drawn).items():
            if name in names:
                parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _unseen_variance(labels: LabelCounts, macro_f1: float) -> float:
    """How much more the macro average may vary than resamples show: each label's F1 as a share, with one more decision
    that is right as often as those of all labels. Of a label that these rows lack nothing else is known."""
    decisions = (labels.real + labels.given) / 2
    share = np.divide(labels.hits, decisions, out=np.zeros_like(decisions), where=decisions > 0)
    seen = share * (1 - share) / np.maximum(decisions, 1)
    drawn_towards_all = (labels.hits + macro_f1) / (decisions + 1)
    possible = drawn_towards_all * (1 - drawn_towards_all) / (decisions + 1)
    return float(np.maximum(0, possible - seen).sum() / max(1, int((decisions > 0).sum())) ** 2)


def _rows_alike(value: float, drawn: Counts, unseen_variance: float, rows: int) -> float:
    """Of how many rows a share would vary as the resamples do about the value."""
    variance = max(float(np.square(drawn - value).mean()), float(drawn.var()) + unseen_variance)
    return value * (1 - value) / variance if 0 < value < 1 and variance > 0 else rows
