"""Scores at a temperature: logits (of a multi-label target log-odds) divided by one number a target. Pure.

Above 1 it makes a model less sure of itself. The order of a row's labels stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema

FLOOR = 1e-12  #: A score below counts as this much: an answer without any doubt has no logarithm.

#: float32 arithmetic may leave a probability this far outside of 0 to 1.
_SLACK = 1e-6

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]


def scaled(scores: Floats, temperature: float, *, multi: bool) -> Floats:
    """Scores (rows, labels) at a temperature. A single-label target's sum to 1."""
    if multi:
        clipped = np.clip(scores, FLOOR, 1 - FLOOR)
        with np.errstate(over="ignore"):
            odds: Floats = 1 / (1 + np.exp((np.log1p(-clipped) - np.log(clipped)) / temperature))
        return odds
    logits = np.log(np.clip(scores, FLOOR, 1.0)) / temperature
    shares: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def are_probabilities(scores: NDArray[np.floating]) -> bool:
    """Whether every score lies between 0 and 1."""
    return bool(scores.min(initial=0.0) >= -_SLACK and scores.max(initial=0.0) <= 1 + _SLACK)


def at_temperatures(scores: Sequence[Scores], schema: LabelSchema, temperatures: Mapping[str, float]) -> list[Scores]:
    """An answer's scores, target by target, at the temperatures of those that have one. Scores that are no
    probabilities have no temperature and stay as they are."""
    return [
        scaled(one.astype(np.float64), temperatures[target.name], multi=target.multi).astype(np.float32)
        if target.name in temperatures and are_probabilities(one)
        else one
        for target, one in zip(schema.targets, scores, strict=True)
    ]
