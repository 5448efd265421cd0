"""Fitting a temperature: one number a target that makes scores say how often they are right. Pure.

Guo et al., "On Calibration of Modern Neural Networks", 2017. Scores are taken for probabilities.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logit

from labelmill_worker.inference.models.temperature import FLOOR

LEAST, MOST = 0.05, 100.0
MAX_ROWS = 20_000  #: Rows that a temperature is fitted on; more change its third digit.

Floats = NDArray[np.float64]


class Scale(NamedTuple):
    """A target's temperature, and by what the scores at hand, which may be at an earlier one, are to be divided."""

    temperature: float
    factor: float


def fit_single(scores: Floats, truth: NDArray[np.int32]) -> dict[str, Any] | None:
    """The temperature with the least log-loss on these rows; `truth` numbers the columns. None without rows."""
    if not len(truth):
        return None
    logits, at = np.log(np.clip(scores, FLOOR, 1.0)), np.arange(len(truth))

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[at, truth].mean())

    return _least(loss, len(truth))


def fit_multi(scores: Floats, truth: NDArray[np.bool_]) -> dict[str, Any] | None:
    """The same for a multi-label target: one temperature for all of its labels."""
    if not len(truth):
        return None
    odds = logit(np.clip(scores, FLOOR, 1 - FLOOR))
    signed = np.where(truth, odds, -odds)

    def loss(temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed / temperature).mean())

    return _least(loss, len(truth))


def _least(loss: Any, rows: int) -> dict[str, Any]:
    minimum = minimize_scalar(
        lambda exponent: loss(float(np.exp(exponent))),
        bounds=(np.log(LEAST), np.log(MOST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(minimum.x))
    return {"temperature": temperature, "rows": rows, "log_loss_before": loss(1.0), "log_loss_after": loss(temperature)}
