"""A version's thresholds on the scale of another temperature: the change of scale alone must change no answer. Pure.

A multi-label score at one temperature is a rising function of the same score at another: its thresholds are carried
over exactly. A single-label row's best score also depends on its other scores, so that no threshold on the new scale
parts all rows as before. It becomes the one under which as many validation rows lie as lay under the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.temperature import scaled

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NewScale:
    """The temperature that a target gets, and its validation rows' scores (rows, labels) without any."""

    target: Target
    temperature: float
    scores: Floats


def rescaled_thresholds(
    thresholds: Mapping[str, Any] | None,
    schema: LabelSchema,
    before: Mapping[str, float],
    new: Mapping[str, NewScale],
) -> dict[str, Any] | None:
    """The thresholds of a version that had the temperatures `before` and gets `new` ones, by target."""
    found: dict[str, Any] = dict(thresholds or {})
    for target in schema.targets:
        scale, given = new.get(target.name), found.get(target.name, found.get("*"))
        if scale is None or given is None:
            continue
        old = before.get(target.name, 1.0)
        if not target.multi and isinstance(given, Mapping):
            top = scale.scores.argmax(axis=1)
            found[target.name] = {
                label: _as_many_under(float(one), scale, old, scale.scores[top == target.labels.index(label)])
                for label, one in given.items()
                if label in target.labels
            }
        elif not target.multi:
            found[target.name] = _as_many_under(float(given), scale, old, scale.scores)
        elif isinstance(given, Mapping):
            found[target.name] = {label: _carried(float(one), old, scale) for label, one in given.items()}
        else:
            found[target.name] = dict.fromkeys(target.labels, _carried(float(given), old, scale))
    return found or None


def _carried(threshold: float, before: float, scale: NewScale) -> float:
    if not 0 < threshold < 1:
        return threshold
    return float(scaled(np.array([[threshold]]), scale.temperature / before, multi=True)[0, 0])


def _as_many_under(threshold: float, scale: NewScale, before: float, scores: Floats) -> float:
    """Between the best scores of two of the rows (`scores`) by their ranks. All scores alike, and a score of 1, are so
    at every temperature."""
    alike = 1 / len(scale.target.labels)
    if not alike < threshold < 1:
        return threshold
    ranked = [
        np.sort(np.clip(scaled(scores, temperature, multi=False).max(axis=1), alike, 1.0))
        for temperature in (before, scale.temperature)
    ]
    old, now = (np.concatenate([[alike], one, [1.0]]) for one in ranked)
    above = int(np.searchsorted(old, np.float64(np.float32(threshold)), side="left"))
    low, high = old[above - 1], old[above]
    share = (threshold - low) / (high - low) if high > low else 0.5
    return float(now[above - 1] + (now[above] - now[above - 1]) * min(max(share, 0.01), 0.99))
