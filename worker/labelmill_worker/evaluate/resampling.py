"""How far metrics may be off by the luck of the rows: Wilson's interval, by bootstrap where a metric is no share. Pure.

Rows with the same truth and the same answer are alike, so a resample of n rows is one draw from a multinomial over the
distinct cases: the distribution is that of drawing rows, the work depends on the cases and not on the rows.

The quantiles of resamples are too narrow near 0 and 1, and where labels are rare they lie to one side: a resample lacks
some of the labels that the rows have, as the rows lack some that there are. So an F1 gets the Wilson interval of as
many rows as would vary like its resamples; what resamples are off by, on average, counts as variation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def intervals(case_rows: NDArray[np.int64], support: Counts, statistics: Statistics) -> dict[str, Any]:
    """`{"accuracy": [low, high], …, "withheld": {}, "level", "resamples", "seed"}`.

    `case_rows`: rows of each distinct case. `support`: rows with each label that a macro average is over. `statistics`:
    counts (resamples, cases) → for each metric its values. A metric whose interval would not hold has None, and the
    reason under `withheld`.
    """
    rows = int(case_rows.sum())
    found = {name: float(values[0]) for name, values in statistics(case_rows[None].astype(np.float64)).items()}
    resamples = RESAMPLES if len(case_rows) * len(support) * RESAMPLES <= _WORK else _FEW
    drawn = _resampled({name for name in found if name != "accuracy"}, case_rows, resamples, statistics)
    bounds: dict[str, Any] = {"accuracy": wilson_interval(found["accuracy"], rows)}
    bounds |= {name: wilson_interval(found[name], _rows_alike(found[name], drawn[name], rows)) for name in drawn}
    withheld = {}
    few = int((support < FEW_ROWS).sum())
    if few > FEW_LABELS * len(support):
        bounds["macro_f1"] = None
        withheld["macro_f1"] = f"{few} of {len(support)} labels have fewer than {FEW_ROWS} rows"
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


def _rows_alike(value: float, drawn: Counts, rows: int) -> float:
    """Of how many rows a share would vary as the resamples do about the value."""
    variance = float(np.square(drawn - value).mean())
    return value * (1 - value) / variance if 0 < value < 1 and variance > 0 else rows
