"""The temperatures in a model version's calibration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def temperatures_of(calibration: Mapping[str, Any] | None) -> dict[str, float]:
    """target → the temperature applied to its scores; targets whose scores are not rescaled are missing.

    Early versions of Labelmill showed a fitted temperature without applying it, and tuned thresholds without it. Such a
    temperature is not applied until it is fitted again.
    """
    return {name: float(entry["temperature"]) for name, entry in (calibration or {}).items() if entry.get("applied")}
