"""How far metrics may be off by the luck of the rows: percentile bootstrap over rows. Pure.

Rows with the same truth and the same answer are alike, so a resample of n rows is one draw from a multinomial over the
distinct cases: the distribution is that of drawing rows, the work depends on the cases and not on the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
_FEW = 200  #: Resamples where a thousand would take minutes.
_WORK = 2e10
_CELLS = 2_000_000  # numbers held at a time

Counts = NDArray[np.float64]
Statistics = Callable[[Counts], dict[str, Counts]]


def intervals(case_rows: NDArray[np.int64], labels: int, statistics: Statistics) -> dict[str, Any]:
    """`{"accuracy": [low, high], …, "level", "resamples", "seed"}`.

    `case_rows`: rows of each distinct case. `statistics`: counts (resamples, cases) → for each metric its values.
    """
    rows = int(case_rows.sum())
    resamples = RESAMPLES if len(case_rows) * labels * RESAMPLES <= _WORK else _FEW
    shares = case_rows / rows
    rng = np.random.default_rng(SEED)
    at_once = max(1, min(resamples, _CELLS // len(case_rows)))
    parts: dict[str, list[Counts]] = {}
    for start in range(0, resamples, at_once):
        drawn = rng.multinomial(rows, shares, size=min(at_once, resamples - start)).astype(np.float64)
        for name, values in statistics(drawn).items():
            parts.setdefault(name, []).append(values)
    tail = (1 - LEVEL) / 2
    bounds = {
        name: [float(bound) for bound in np.quantile(np.concatenate(values), [tail, 1 - tail])]
        for name, values in parts.items()
    }
    return bounds | {"level": LEVEL, "resamples": resamples, "seed": SEED}
