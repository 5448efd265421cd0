"""Logistic regression over vectors that do not fit into memory: mini-batches of a file, by Adam. Pure but for reading.

Rows are read in the file's order (`prepare` shuffles them) and mixed within each block, so memory is a block and the
weights, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.inference.models.head import NEVER, probabilities
from labelmill_worker.train.heads.solvers import Linear
from labelmill_worker.train.heads.vector_rows import Matrix, TargetLabels, VectorRows

_BATCH_ROWS = 256
_WANTED_STEPS = 6_000
_MAX_EPOCHS, _MIN_EPOCHS = 30, 3
_RATE = 0.05
_BETA_1, _BETA_2 = 0.9, 0.99
_SEED = 42


def fit_minibatch(
    rows: VectorRows, labels: TargetLabels, inverse_strength: float, check: Callable[[], None] = lambda: None
) -> Linear:
    """Fit one target. `inverse_strength` is scikit-learn's C. Needs memory for a block and for the weights alone.

    `check` is called between any two blocks: what it raises ends the work.
    """
    target, taking_part = labels.target, labels.labelled()
    wanted = np.zeros(rows.count, bool)
    wanted[taking_part] = True
    steps_an_epoch = max(1, len(taking_part) // _BATCH_ROWS)
    epochs = min(_MAX_EPOCHS, max(_MIN_EPOCHS, round(_WANTED_STEPS / steps_an_epoch)))
    total = epochs * (steps_an_epoch + rows.count // 8_192 + 1)
    scale = _scale(rows)
    penalty = scale**2 / (inverse_strength * max(1, len(taking_part)))
    adam = _Adam((rows.dimensions + 1, len(target.labels)), total)
    rng = np.random.default_rng(_SEED)
    for epoch in range(epochs):
        adam.average = epoch == epochs - 1
        for start, block in rows.blocks():
            check()
            selected = np.flatnonzero(wanted[start : start + len(block)])
            rng.shuffle(selected)
            for first in range(0, len(selected), _BATCH_ROWS):
                part = selected[first : first + _BATCH_ROWS]
                vectors = block[part] * scale
                errors = _errors(vectors, adam.values, labels, part + start)
                adam.step(_gradient(vectors, errors, adam.values, penalty))
    found = adam.result()
    counts = np.bincount(labels.codes, minlength=len(target.labels))
    intercepts = found[-1].astype(np.float32)
    intercepts[counts == 0] = NEVER
    weights = (found[:-1] * scale).astype(np.float32)
    weights[:, counts == 0] = 0
    return Linear(weights, intercepts)


def _scale(rows: VectorRows) -> float:
    """What brings the components near 1, where Adam's rate fits: those of vectors of length 1 are tiny."""
    _, block = next(iter(rows.blocks()))
    return float(1 / max(np.sqrt(np.square(block).mean()), 1e-6))


def _errors(vectors: Matrix, values: Matrix, labels: TargetLabels, rows: NDArray[np.int64]) -> Matrix:
    scores = probabilities(vectors @ values[:-1] + values[-1], labels.target)
    if labels.target.multi:
        scores -= labels.present(rows)
    else:
        scores[np.arange(len(rows)), labels.single(rows)] -= 1
    return scores


def _gradient(vectors: Matrix, errors: Matrix, values: Matrix, penalty: float) -> Matrix:
    gradient = np.empty_like(values)
    gradient[:-1] = vectors.T @ errors / len(vectors) + penalty * values[:-1]
    gradient[-1] = errors.mean(axis=0)
    return gradient


class _Adam:
    """Adam with a rate that falls to nothing, and the mean of the last epoch's values as its result."""

    def __init__(self, shape: tuple[int, int], total_steps: int) -> None:
        self.values: Matrix = np.zeros(shape, np.float32)
        self.average = False
        self._mean, self._square = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._sum, self._summed = np.zeros(shape, np.float64), 0
        self._steps, self._total = 0, total_steps

    def step(self, gradient: Matrix) -> None:
        self._steps += 1
        rate = _RATE * max(0.02, 1 - self._steps / self._total)
        self._mean += (1 - _BETA_1) * (gradient - self._mean)
        self._square += (1 - _BETA_2) * (gradient**2 - self._square)
        mean = self._mean / (1 - _BETA_1**self._steps)
        square = self._square / (1 - _BETA_2**self._steps)
        self.values -= rate * mean / (np.sqrt(square) + 1e-8)
        if self.average:
            self._sum += self.values
            self._summed += 1

    def result(self) -> NDArray[np.float64]:
        return self._sum / self._summed if self._summed else self.values.astype(np.float64)
