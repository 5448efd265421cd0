"""What a model version's calibration says of how it is asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def temperatures_of(calibration: Mapping[str, Any] | None) -> dict[str, float]:
    """target → the temperature that its scores are given at; none for a target whose scores are given as they are.

    A temperature that an earlier Labelmill fitted was only shown, never applied, and its thresholds are on the scale
    without it: it is not applied until it is fitted again.
    """
    return {name: float(one["temperature"]) for name, one in (calibration or {}).items() if one.get("applied")}
