"""How large a calibration error few rows make of perfect scores: measured over seeded samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from labelmill_worker.evaluate.probabilities import Reliability

SAMPLES = 400


def reliability_of(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    found = Reliability()
    found.add(confidence, right)
    return found


def beyond_luck(rows: int, seed: int, *, sharpness: float = 1.0) -> bool:
    """Whether scores in a sample have an error beyond luck; at a sharpness of 1 each is how often it is right."""
    rng = np.random.default_rng(seed)
    real = rng.beta(4, 2, rows)
    shown = real**sharpness / (real**sharpness + (1 - real) ** sharpness)
    found = reliability_of(shown, rng.random(rows) < real)
    error, by_luck = found.error(), found.error_by_luck()
    assert error is not None
    assert by_luck is not None
    return error > by_luck


@pytest.mark.parametrize("rows", [30, 100, 600, 5_000])
def test_perfect_scores_are_hardly_ever_beyond_luck(rows: int) -> None:
    alarms = sum(beyond_luck(rows, seed) for seed in range(SAMPLES))
    assert alarms <= binom.ppf(0.9999, SAMPLES, 0.01)


def test_scores_that_are_too_sure_are_beyond_luck() -> None:
    assert sum(beyond_luck(1_000, seed, sharpness=2.5) for seed in range(100)) >= 99


def test_luck_makes_less_of_more_rows_and_nothing_is_known_without_rows() -> None:
    rng = np.random.default_rng(1)
    few, many = (rng.beta(4, 2, rows) for rows in (100, 10_000))
    of_few = reliability_of(few, rng.random(100) < few).error_by_luck()
    of_many = reliability_of(many, rng.random(10_000) < many).error_by_luck()
    assert of_few is not None
    assert of_many is not None
    assert of_few > 0.05 > of_many
    assert Reliability().error_by_luck() is None
