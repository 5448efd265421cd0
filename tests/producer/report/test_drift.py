"""When a report cries wolf, and when it does not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from labelmill.report.drift import drift_between

LABELS = [f"label {number}" for number in range(30)]


def sample(rows: int, shares: np.ndarray, seed: int) -> Counter[str]:
    drawn = np.random.default_rng(seed).multinomial(rows, shares)
    return Counter(dict(zip(LABELS, map(int, drawn), strict=True)))


def test_samples_of_the_same_texts_do_not_drift() -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(30, 5.0))
    found = [drift_between(sample(300, shares, seed), sample(2000, shares, seed + 1000)) for seed in range(200)]
    alarms = [one for one in found if one is not None and one.tone != "good"]
    assert len(found) - found.count(None) == 200
    assert len(alarms) <= 2


def test_other_texts_drift_and_the_labels_that_moved_are_named() -> None:
    before = np.full(30, 1 / 30)
    now = before.copy()
    now[0], now[1:] = 0.5, 0.5 / 29
    found = drift_between(sample(500, before, 1), sample(500, now, 2))
    assert found is not None
    assert (found.tone, found.moved[0][0]) == ("bad", "label 0")
    assert "label a sample" in found.verdict


def test_the_index_is_the_sum_over_labels() -> None:
    found = drift_between({"a": 60, "b": 40}, {"a": 40, "b": 60})
    assert found is not None
    p, q = np.array([60.5, 40.5]) / 101, np.array([40.5, 60.5]) / 101
    assert found.psi == pytest.approx(float(((q - p) * np.log(q / p)).sum()))


@pytest.mark.parametrize("labels", [4, 30, 1000])
def test_what_luck_makes_is_chi_squared(labels: int) -> None:
    counts = {str(number): 20 for number in range(labels)}
    found = drift_between(counts, dict.fromkeys(counts, 40) | {"0": 80})
    assert found is not None
    expected = chi2.ppf(0.95, labels - 1) * (1 / (20 * labels) + 1 / (40 * labels + 40))
    assert found.by_luck == pytest.approx(expected, rel=0.01)


def test_a_label_that_is_new_counts_without_being_infinite() -> None:
    found = drift_between({"a": 100, "b": 100}, {"a": 100, "b": 100, "c": 200})
    assert found is not None
    assert 0.25 < found.psi < 10


@pytest.mark.parametrize(("before", "now"), [({"a": 10, "b": 9}, {"a": 900}), ({"a": 900}, {}), ({"a": 99}, {"a": 99})])
def test_too_few_rows_or_labels_say_nothing(before: dict[str, int], now: dict[str, int]) -> None:
    assert drift_between(before, now) is None
