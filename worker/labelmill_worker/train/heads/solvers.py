"""Logistic regression over vectors that fit into memory, by L-BFGS over one matrix for all labels. Pure.

One label of several: a softmax. Several labels at once: one-vs-rest regressions, solved together, which gives what
scikit-learn's would one after the other, in a fifth of the time. Both end when the loss falls no more: with many labels
and little regularisation the gradient is small long before the scores are sure enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.inference.models.head import NEVER
from labelmill_worker.train.heads.vector_rows import Matrix, Numbers, TargetLabels

_MAX_ITERATIONS = 300
FLAT = 1e-5  #: Relative fall of the loss in one step that is not worth another.
ROUGHLY_FLAT = 1e-4  #: The same where a fit is only to be compared with others.
_FELL_FAR = 0.1  #: A loss that fell to less than this share is small: what is flat must be asked anew.
_ROUNDS = 6

Flat = NDArray[np.float64]


class Linear(NamedTuple):
    """Weights (dimensions, labels) and intercepts (labels), float32."""

    weights: Matrix
    intercepts: Matrix


def solve(
    vectors: Matrix,
    labels: TargetLabels,
    rows: NDArray[np.int64],
    strength: float,
    start: Linear | None = None,
    flat: float = FLAT,
) -> Linear:
    """Fit one target to `vectors`, those of `rows`, in memory."""
    if labels.target.multi:
        return fit_sigmoids(vectors, labels.present(rows), strength, start, flat)
    return fit_softmax(vectors, labels.single(rows), len(labels.target.labels), strength, start, flat)


def fit_softmax(
    vectors: Matrix,
    codes: Numbers,
    labels: int,
    inverse_strength: float,
    start: Linear | None = None,
    flat: float = FLAT,
) -> Linear:
    """One label a row. `inverse_strength` is scikit-learn's C. Labels without a row are never chosen. `start`: a fit to
    nearly the same, from which it is not far."""
    rows, dimensions = vectors.shape
    weights = np.zeros((dimensions, labels), np.float32)
    intercepts = np.full(labels, NEVER, np.float32)
    seen, truth = np.unique(codes, return_inverse=True)
    if len(seen) < 2:
        intercepts[seen] = 0.0
        return Linear(weights, intercepts)
    size, every = dimensions * len(seen), np.arange(rows)
    # of two labels scikit-learn's C is of the difference of their weights
    penalty = 1.0 / (inverse_strength * rows) * (2.0 if len(seen) == 2 else 1.0)

    def loss(flat: Flat) -> tuple[float, Flat]:
        parameters = flat.astype(np.float32)
        margins = vectors @ parameters[:size].reshape(dimensions, -1) + parameters[size:]
        margins -= margins.max(axis=1, keepdims=True)
        of_truth = margins[every, truth].astype(np.float64)
        shares = np.exp(margins, out=margins)
        sums = shares.sum(axis=1, keepdims=True)
        total = float(np.log(sums, dtype=np.float64).sum() - of_truth.sum())
        shares /= sums
        shares[every, truth] -= 1
        return _with_penalty(total, vectors, shares, parameters, penalty)

    begin = np.zeros(size + len(seen))
    if start is not None:
        begin[:size], begin[size:] = start.weights[:, seen].ravel(), start.intercepts[seen]
    solution = _minimised(loss, begin, flat)
    weights[:, seen], intercepts[seen] = solution[:size].reshape(dimensions, -1), solution[size:]
    return Linear(weights, intercepts)


def fit_sigmoids(
    vectors: Matrix,
    present: NDArray[np.bool_],
    inverse_strength: float,
    start: Linear | None = None,
    flat: float = FLAT,
) -> Linear:
    """Any labels a row: `present` (rows, labels). Labels that no row has never hold; those that all have always do."""
    rows, dimensions = vectors.shape
    labels = present.shape[1]
    counts = present.sum(axis=0)
    learnt = np.flatnonzero((counts > 0) & (counts < rows))
    weights = np.zeros((dimensions, labels), np.float32)
    intercepts = np.where(counts == 0, NEVER, -NEVER).astype(np.float32)
    if not len(learnt):
        return Linear(weights, intercepts)
    truth = present[:, learnt].astype(np.float32)
    size = dimensions * len(learnt)
    penalty = 1.0 / (inverse_strength * rows)

    def loss(flat: Flat) -> tuple[float, Flat]:
        parameters = flat.astype(np.float32)
        margins = vectors @ parameters[:size].reshape(dimensions, -1) + parameters[size:]
        total = float(np.logaddexp(0, margins, dtype=np.float32).sum(dtype=np.float64) - (margins * truth).sum())
        with np.errstate(over="ignore"):
            errors = 1 / (1 + np.exp(-margins)) - truth
        return _with_penalty(total, vectors, errors, parameters, penalty)

    rates = np.clip(counts[learnt] / rows, 1e-6, 1 - 1e-6)
    begin = np.concatenate([np.zeros(size), np.log(rates / (1 - rates))])
    if start is not None:
        begin[:size], begin[size:] = start.weights[:, learnt].ravel(), start.intercepts[learnt]
    solution = _minimised(loss, begin, flat)
    weights[:, learnt], intercepts[learnt] = solution[:size].reshape(dimensions, -1), solution[size:]
    return Linear(weights, intercepts)


def _with_penalty(total: float, vectors: Matrix, errors: Matrix, found: Matrix, penalty: float) -> tuple[float, Flat]:
    """The mean loss with half the squares of the weights, and its gradient."""
    rows, size = len(vectors), vectors.shape[1] * errors.shape[1]
    gradient = np.empty(len(found))
    gradient[:size] = (vectors.T @ errors).ravel()
    gradient[size:] = errors.sum(axis=0)
    gradient /= rows
    gradient[:size] += penalty * found[:size]
    return total / rows + penalty * float(np.dot(found[:size], found[:size])) / 2, gradient


def _minimised(loss: Callable[[Flat], tuple[float, Flat]], begin: Flat, flat: float) -> Flat:
    """Where the loss falls no more. In rounds: SciPy's measure of flatness is of the loss that a round begins with."""
    from scipy.optimize import minimize  # noqa: PLC0415 - slow to import, and only training needs it

    point = begin
    for _ in range(_ROUNDS):
        unit = loss(point)[0]
        if not unit > 0:
            break

        def relative(at: Flat, unit: float = unit) -> tuple[float, Flat]:
            value, gradient = loss(at)
            return value / unit, gradient / unit

        options = {"maxiter": _MAX_ITERATIONS, "gtol": 0.0, "ftol": flat}
        result = minimize(relative, point, jac=True, method="L-BFGS-B", options=options)
        point = result.x
        if result.fun > _FELL_FAR:
            break
    return point
