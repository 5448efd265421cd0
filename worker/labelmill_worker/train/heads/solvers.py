"""Logistic regression over vectors that fit into memory. Pure.

One label of several: scikit-learn's multinomial regression. Several labels at once: one-vs-rest regressions, solved
together by L-BFGS over one matrix, which gives what scikit-learn's would one after the other, in a fifth of the time.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.inference.models.head import NEVER
from labelmill_worker.train.heads.vector_rows import Matrix, Numbers

_MAX_ITERATIONS = 300
_TOLERANCE = 3e-4  # of the largest gradient of the mean loss: scikit-learn's 1e-4 takes twice the time for no accuracy
_USUAL_C = 128.0  #: Up to here that tolerance is fine enough.
_FLAT = 1e-6  # relative fall of the loss in one step that is not worth another


class Linear(NamedTuple):
    """Weights (dimensions, labels) and intercepts (labels), float32."""

    weights: Matrix
    intercepts: Matrix


def fit_softmax(vectors: Matrix, codes: Numbers, labels: int, inverse_strength: float) -> Linear:
    """One label a row. `inverse_strength` is scikit-learn's C. Labels without a row are never chosen."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - slow to import, and only training needs it
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    weights = np.zeros((vectors.shape[1], labels), np.float32)
    intercepts = np.full(labels, NEVER, np.float32)
    seen = np.unique(codes)
    if len(seen) < 2:
        intercepts[seen] = 0.0
        return Linear(weights, intercepts)
    # with little regularisation the gradient is small long before the scores are sure enough
    tolerance = _TOLERANCE * min(1.0, (_USUAL_C / inverse_strength) ** 0.5)
    regression = LogisticRegression(C=inverse_strength, max_iter=_MAX_ITERATIONS, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as far as it came in so many steps is good enough
        regression.fit(vectors, codes)
    if len(seen) == 2:  # one row of weights, for the second label
        intercepts[seen[0]] = 0.0
        weights[:, seen[1]], intercepts[seen[1]] = regression.coef_[0], regression.intercept_[0]
    else:
        weights[:, seen], intercepts[seen] = regression.coef_.T, regression.intercept_
    return Linear(weights, intercepts)


def fit_sigmoids(vectors: Matrix, present: NDArray[np.bool_], inverse_strength: float) -> Linear:
    """Any labels a row: `present` (rows, labels). Labels that no row has never hold; those that all have always do."""
    from scipy.optimize import minimize  # noqa: PLC0415 - as above

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

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = flat.astype(np.float32)
        slopes, offsets = found[:size].reshape(dimensions, -1), found[size:]
        margins = vectors @ slopes + offsets
        total = float(np.logaddexp(0, margins, dtype=np.float32).sum(dtype=np.float64) - (margins * truth).sum())
        with np.errstate(over="ignore"):
            errors = 1 / (1 + np.exp(-margins)) - truth
        gradient = np.concatenate(
            [(vectors.T @ errors).ravel() / rows + penalty * found[:size], errors.sum(axis=0) / rows]
        )
        half_squares = float(np.dot(found[:size], found[:size])) / 2
        return total / rows + penalty * half_squares, gradient.astype(np.float64)

    rates = np.clip(counts[learnt] / rows, 1e-6, 1 - 1e-6)
    begin = np.concatenate([np.zeros(size), np.log(rates / (1 - rates))])
    options = {"maxiter": _MAX_ITERATIONS, "gtol": _TOLERANCE / 10, "ftol": _FLAT}
    flat = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options).x
    weights[:, learnt] = flat[:size].reshape(dimensions, -1)
    intercepts[learnt] = flat[size:]
    return Linear(weights, intercepts)
