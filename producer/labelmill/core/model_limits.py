"""`LABELMILL_MODEL_LIMITS`: Mistral's rate limits of single models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labelmill.contracts.bounds import shown

_FORM = '{"MODEL": {"requests_per_minute": 60, "tokens_per_minute": 1000000}}'

_LARGEST = 1e15  #: Larger values, such as infinity, are not meaningful limits.


@dataclass(frozen=True, slots=True)
class ModelLimit:
    """Of one model, over the whole fleet; None: no limit of its own."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


def read_model_limits(raw_limits: object) -> dict[str, ModelLimit]:
    """Limits by the id of the model that Mistral is asked for. Raises ValueError."""
    if not isinstance(raw_limits, dict):
        raise ValueError(f"it is not a JSON object of models; write {_FORM}")  # noqa: TRY004 - as of all settings
    return {str(model).strip(): _read_limit(str(model).strip(), limit) for model, limit in raw_limits.items()}


def _read_limit(model: str, raw_limit: Any) -> ModelLimit:
    if isinstance(raw_limit, ModelLimit):
        return raw_limit
    if not model:
        raise ValueError(f"it has a limit without a model's id; write {_FORM}")
    if not isinstance(raw_limit, dict) or not raw_limit:
        raise ValueError(f"{shown(model)} has no limits; write {_FORM}")
    for name, value in raw_limit.items():
        if name not in ModelLimit.__dataclass_fields__:
            raise ValueError(
                f"{shown(model)} has {shown(str(name))}; known are {' and '.join(ModelLimit.__dataclass_fields__)}"
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value <= _LARGEST:
            raise ValueError(f"{name} of {shown(model)} is not a number above 0 and below 1e15")
    return ModelLimit(**{name: float(value) for name, value in raw_limit.items()})
