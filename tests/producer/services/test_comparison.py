"""McNemar's test, and the choice of the cheapest that is not worse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from labelmill.services.comparison import Contender, judge, mcnemar, verdict_of


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


def contender(model: str, right: int, cost: float | None) -> Contender:
    return Contender(model, np.arange(200) < right, cost)


def test_the_cheapest_that_is_not_significantly_worse_is_named() -> None:
    found = judge([contender("dear", 190, 9.0), contender("cheap", 186, 1.0), contender("bad", 150, 0.1)])
    assert (found["best"], found["cheapest_not_worse"], found["not_worse"]) == ("dear", "cheap", ["dear", "cheap"])
    verdict = verdict_of(found, [])
    assert verdict.startswith("take cheap: it is the cheapest, and not significantly worse than the best, dear")


def test_a_stricter_level_believes_fewer_differences() -> None:
    both = [contender("dear", 190, 9.0), contender("cheap", 184, 1.0)]
    assert judge(both, level=0.05)["cheapest_not_worse"] == "dear"
    assert judge(both, level=0.001)["cheapest_not_worse"] == "cheap"


def test_a_cost_that_is_not_known_wins_nothing() -> None:
    found = judge([contender("best", 190, None), contender("other", 189, 2.0)])
    assert (found["cheapest_not_worse"], found["without_cost"]) == ("other", ["best"])
    found = judge([contender("best", 190, None), contender("other", 100, 2.0)])
    assert found["cheapest_not_worse"] is None
    assert "is not known" in verdict_of(found, [])


def test_of_equals_the_cheaper_one_is_the_best() -> None:
    assert judge([contender("dear", 180, 9.0), contender("cheap", 180, 1.0)])["best"] == "cheap"
