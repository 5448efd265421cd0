"""The choice of the cheapest model that is not worse than the best."""

from __future__ import annotations

import numpy as np

from labelmill.services.comparison import Contender, judge, verdict_of


def contender(model: str, right: int, cost: float | None) -> Contender:
    return Contender(model, np.arange(200) < right, cost)


def test_the_cheapest_that_is_not_significantly_worse_is_named() -> None:
    found = judge([contender("dear", 190, 9.0), contender("cheap", 186, 1.0), contender("bad", 150, 0.1)])
    assert (found["best"], found["cheapest_not_worse"], found["not_worse"]) == ("dear", "cheap", ["dear", "cheap"])
    verdict = verdict_of(found, [])
    assert verdict.startswith("take cheap: it is the cheapest, and not significantly worse than the best, dear")
    assert "(p = 0.12), but these rows still allow that it loses up to 5.0% of accuracy" in verdict


def test_a_margin_takes_only_models_that_surely_lose_no_more() -> None:
    three = [contender("dear", 190, 9.0), contender("cheap", 188, 1.0), contender("bad", 150, 0.1)]
    wide = judge(three, margin=0.05)
    assert (wide["cheapest_not_worse"], wide["not_worse"]) == ("cheap", ["dear", "cheap"])
    assert verdict_of(wide, []).startswith("take cheap: it is the cheapest that surely loses at most 5.0% of accuracy")
    assert judge(three, margin=0.5)["cheapest_not_worse"] == "bad"


def test_with_too_few_rows_for_a_margin_even_the_best_is_not_taken() -> None:
    found = judge([contender("dear", 190, 9.0), contender("cheap", 188, 1.0)], margin=0.002)
    assert (found["cheapest_not_worse"], found["not_worse"]) == (None, [])
    assert verdict_of(found, []).startswith("take more rows: of no model do these show")


def test_a_difference_within_the_margin_may_be_significant() -> None:
    rows = np.arange(20_000)
    found = judge([Contender("dear", rows < 19_000, 9.0), Contender("cheap", rows < 18_900, 1.0)], margin=0.01)
    (compared,) = found["comparisons"]
    assert compared["significantly_worse"]
    assert found["cheapest_not_worse"] == "cheap"


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
