"""Fits of a target to parts of its rows: each row of those is scored by the fit that had not seen it. Pure but for
reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.train.heads.solvers import Linear, solve
from labelmill_worker.train.heads.vector_rows import TargetLabels, VectorRows

FOLDS = 3
_SEED = 42
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class FoldFits:
    """`fits[fold]` has seen every one of `rows` (ascending) but those of its own fold."""

    rows: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    folds: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    fits: list[Linear] = field(default_factory=list)

    def mean(self) -> Linear | None:
        """What a fit to all of the rows is near to."""
        if not self.fits:
            return None
        weights, intercepts = zip(*self.fits, strict=True)
        return Linear(np.mean(weights, axis=0), np.mean(intercepts, axis=0))

    def extended(
        self, rows: VectorRows, labels: TargetLabels, strength: float, check: Callable[[], None] = lambda: None
    ) -> FoldFits:
        """The same for all rows that take part, in memory. Each row stays in the fold that it was in, so that a fit may
        begin where the smaller one ended."""
        taking_part = labels.labelled()
        if not self.fits or len(taking_part) == len(self.rows):
            return self
        folds = deal_folds(labels, taking_part)
        folds[np.searchsorted(taking_part, self.rows)] = self.folds
        vectors, fits = rows.take(taking_part), []
        for fold, start in enumerate(self.fits):
            check()
            seen = folds != fold
            fits.append(solve(vectors[seen], labels, taking_part[seen], strength, start))
        return FoldFits(taking_part, folds, fits)


def deal_folds(labels: TargetLabels, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold of each row: the rows of a label are dealt out evenly, by the rarest label of a row."""
    rng = np.random.default_rng(_SEED)
    counts = np.bincount(labels.codes, minlength=len(labels.target.labels))
    rarest = np.array(
        [
            min(labels.codes[labels.starts[row] : labels.starts[row + 1]], key=lambda code: counts[code], default=-1)
            for row in rows
        ]
    )
    order = np.lexsort((rng.random(len(rows)), rarest))
    folds = np.empty(len(rows), np.int64)
    folds[order] = np.arange(len(rows)) % FOLDS
    return folds
