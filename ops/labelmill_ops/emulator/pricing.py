"""What a training would cost. The figures are made up; only their form, currency and minimum are Mistral's."""

import math
import time
from typing import Any

from labelmill_ops.emulator.training_data import TrainingData

MINIMUM_COST_EUR = 4.0
_EUR_PER_MILLION_TOKENS = 1.0
_DEFAULT_STEPS = 100
_ROWS_PER_STEP = 32


def quoted(hyperparameters: dict[str, Any], data: TrainingData, train_s: float) -> dict[str, Any]:
    """Return a validated job's `metadata`: cost in EUR, duration in seconds, tokens."""
    rows = len(data.train.texts)
    data_tokens = data.tokens
    per_step = max(1, data_tokens * _ROWS_PER_STEP // rows)
    tokens = per_step * training_steps(hyperparameters, rows)
    return {
        "expected_duration_seconds": math.ceil(train_s + rows / 500),
        "cost": round(max(MINIMUM_COST_EUR, tokens / 1e6 * _EUR_PER_MILLION_TOKENS), 2),
        "cost_currency": "EUR",
        "train_tokens_per_step": per_step,
        "train_tokens": tokens,
        "data_tokens": data_tokens,
        "estimated_start_time": int(time.time()),
    }


def training_steps(hyperparameters: dict[str, Any], rows: int) -> int:
    """Return the steps asked for, directly or as epochs, or the default."""
    if hyperparameters.get("training_steps"):
        return int(hyperparameters["training_steps"])
    if hyperparameters.get("epochs"):
        return max(1, math.ceil(float(hyperparameters["epochs"]) * rows / _ROWS_PER_STEP))
    return _DEFAULT_STEPS
