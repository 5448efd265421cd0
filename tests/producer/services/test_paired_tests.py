"""Tests of models on the same rows, and how often they are wrong: measured over seeded samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, chi2

from labelmill.core.paired_loss import largest_loss, rows_to_show
from labelmill.services.comparison import Contender, judge
from labelmill.services.paired_tests import holm, mcnemar


def rights(only_first: int, only_second: int, both: int = 50) -> tuple[np.ndarray, np.ndarray]:
    first = np.array([True] * only_first + [False] * only_second + [True] * both)
    second = np.array([False] * only_first + [True] * only_second + [True] * both)
    return first, second


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 14), (40, 22), (0, 30), (400, 500)])
def test_few_discordant_rows_are_tested_exactly(first: int, second: int) -> None:
    found = mcnemar(*rights(first, second))
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert (found.only_first, found.only_second, found.test) == (first, second, "exact")
    assert found.p_value == pytest.approx(expected, rel=1e-9)


def test_many_discordant_rows_are_tested_by_chi_square() -> None:
    found = mcnemar(*rights(700, 600))
    assert (found.test, found.p_value) == ("chi2", pytest.approx(chi2.sf(99**2 / 1300, 1), rel=1e-9))
    assert found.p_value == pytest.approx(binomtest(700, 1300).pvalue, rel=0.02)


def test_p_values_are_adjusted_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def made_models(rng: np.random.Generator, rows: int, accuracies: list[float], alike: float) -> list[Contender]:
    """Models that share their luck on a part of the rows, as models on the same texts do."""
    common = rng.random(rows)
    found = []
    for number, accuracy in enumerate(accuracies):
        luck = np.where(rng.random(rows) < alike, common, rng.random(rows))
        found.append(Contender(f"m{number}", luck < accuracy, float(number)))
    return found


@pytest.mark.parametrize(("rows", "alike"), [(100, 0.0), (400, 0.6), (1_500, 0.6)])
def test_equal_models_are_hardly_ever_called_worse_however_many_there_are(rows: int, alike: float) -> None:
    rng, samples = np.random.default_rng(rows), 200
    wrong = 0
    for _ in range(samples):
        found = judge(made_models(rng, rows, [0.85] * 10, alike))
        wrong += any(one["significantly_worse"] for one in found["comparisons"])
    assert wrong <= binom.ppf(0.9999, samples, 0.05)


def test_a_model_that_is_much_worse_is_called_so_among_many() -> None:
    rng = np.random.default_rng(5)
    found = [judge(made_models(rng, 600, [0.9] * 9 + [0.75], 0.6))["comparisons"] for _ in range(40)]
    assert all(next(one for one in some if one["model"] == "m9")["significantly_worse"] for some in found)


@pytest.mark.parametrize(("rows", "other", "this"), [(100, 0.05, 0.05), (200, 0.1, 0.05), (800, 0.04, 0.02)])
def test_the_largest_loss_holds_as_often_as_it_says(rows: int, other: float, this: float) -> None:
    drawn = np.random.default_rng(rows).multinomial(rows, [other, this, 1 - other - this], 1_000)
    held = sum(largest_loss(a, b, rows, 0.05) >= other - this for a, b, _ in drawn.tolist())
    assert binom.ppf(0.0001, 1_000, 0.93) <= held <= binom.ppf(0.9999, 1_000, 0.97)


def test_models_without_a_differing_row_may_still_differ() -> None:
    assert 0.01 < largest_loss(0, 0, 200, 0.05) < 0.02
    assert largest_loss(0, 0, 0, 0.05) == largest_loss(3, 4, 100, 0.0) == 1.0
    assert largest_loss(100, 0, 100, 0.05) == pytest.approx(1.0)


def test_a_model_that_loses_more_than_the_margin_is_hardly_ever_taken() -> None:
    rng, samples = np.random.default_rng(8), 400
    taken = 0
    for _ in range(samples):
        cheap, dear = made_models(rng, 200, [0.85, 0.9], 0.6)
        taken += judge([cheap, dear], margin=0.05)["cheapest_not_worse"] == cheap.model
    assert taken <= binom.ppf(0.9999, samples, 0.05)


@pytest.mark.parametrize("level", [0.05, 0.01, 0.05 / 6])
def test_the_rows_that_show_a_small_loss_are_just_enough(level: float) -> None:
    rows = rows_to_show(0.01, level)
    assert largest_loss(0, 0, rows, level) <= 0.01 < largest_loss(0, 0, rows - 1, level)
