"""How often the intervals of an evaluation hold what is so of all rows there are: measured over seeded samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from labelmill.core.proportions import wilson_interval
from labelmill_worker.evaluate import f1
from labelmill_worker.evaluate.resampling import LabelCounts, intervals

SAMPLES = 150
NAMES = ("accuracy", "macro_f1", "weighted_f1", "micro_f1")


class Answered:
    """All rows there are: cases of truth and answer with their shares."""

    def __init__(self, labels: int, accuracy: float, *, skew: float = 0.0) -> None:
        shares = np.arange(1, labels + 1) ** -skew
        table = np.full((labels, labels), (1 - accuracy) / max(1, labels - 1))
        np.fill_diagonal(table, accuracy)
        self.labels, self.shares = labels, (table * (shares / shares.sum())[:, None]).ravel()
        self.real, self.given = (one.ravel() for one in np.indices(table.shape))

    def statistics(self, cases: np.ndarray) -> Any:
        real, given = np.eye(self.labels)[self.real[cases]], np.eye(self.labels)[self.given[cases]]
        right = self.real[cases] == self.given[cases]

        def found(drawn: np.ndarray) -> dict[str, np.ndarray]:
            averages = f1.averages(drawn @ (real * right[:, None]), drawn @ real, drawn @ given, present_only=True)
            return {"accuracy": drawn @ right / drawn.sum(axis=1)} | averages

        return found

    def intervals(self, rows: int, rng: np.random.Generator) -> dict[str, Any]:
        drawn = rng.multinomial(rows, self.shares)
        cases = np.flatnonzero(drawn)
        right = cases[self.real[cases] == self.given[cases]]
        counts = LabelCounts(
            np.bincount(self.real[right], drawn[right], self.labels),
            np.bincount(self.real[cases], drawn[cases], self.labels),
            np.bincount(self.given[cases], drawn[cases], self.labels),
        )
        return intervals(drawn[cases], counts, self.statistics(cases))

    def truth(self) -> dict[str, float]:
        every = np.arange(len(self.shares))
        return {name: float(value[0]) for name, value in self.statistics(every)(self.shares[None]).items()}


@pytest.mark.parametrize(
    ("labels", "accuracy", "skew", "rows"),
    [(2, 0.98, 1.0, 100), (5, 0.98, 0.0, 100), (12, 0.8, 0.5, 300), (16, 0.7, 0.0, 250)],
)
def test_every_interval_holds_in_90_to_98_percent(labels: int, accuracy: float, skew: float, rows: int) -> None:
    every, rng = Answered(labels, accuracy, skew=skew), np.random.default_rng(rows)
    real = every.truth()
    found = [every.intervals(rows, rng) for _ in range(SAMPLES)]
    for name in NAMES:
        given = [one[name] for one in found if one[name]]
        held = sum(low <= real[name] <= high for low, high in given)
        assert len(given) > SAMPLES / 2
        assert binom.ppf(0.001, len(given), 0.9) <= held <= binom.ppf(0.999, len(given), 0.98), name


@pytest.mark.parametrize(("share", "rows"), [(0.98, 100), (0.9, 50), (0.5, 20), (0.02, 300)])
def test_the_interval_of_accuracy_holds_near_0_and_1_too(share: float, rows: int) -> None:
    bounds = [wilson_interval(right / rows, rows) for right in range(rows + 1)]
    chances = binom.pmf(range(rows + 1), rows, share)
    held = sum(chance for chance, (low, high) in zip(chances, bounds, strict=True) if low <= share <= high)
    assert 0.9 <= held <= 0.98
    made = Answered(2, 0.98).intervals(100, np.random.default_rng(0))["accuracy"]
    assert made in [wilson_interval(right / 100, 100) for right in range(101)]


def test_a_label_that_the_rows_lack_widens_the_interval_of_macro_f1() -> None:
    every = Answered(6, 0.9)
    cases, drawn = np.arange(36), np.round(every.shares * 600).astype(int)
    kept = np.flatnonzero(drawn)
    real, given = np.bincount(every.real, drawn, 6), np.bincount(every.given, drawn, 6)
    counts = LabelCounts(drawn[every.real == every.given].astype(float), real, given)
    more = LabelCounts(*(np.append(one, 0.0) for one in counts))
    without, lacking = (
        intervals(drawn[kept], one, every.statistics(cases[kept]))["macro_f1"] for one in (counts, more)
    )
    assert lacking[1] - lacking[0] > 1.2 * (without[1] - without[0])


def test_labels_whose_few_rows_are_all_right_widen_the_interval_of_macro_f1() -> None:
    every = Answered(10, 0.9)
    every.shares = np.bincount(np.ravel_multi_index(([0, 0, 1, *range(2, 10)], [0, 1, 1, *range(2, 10)]), (10, 10)))
    drawn = np.array([50, 10, 40, *([6] * 8)])
    cases = np.flatnonzero(every.shares)
    rows = np.array([60, 40, *([6] * 8)], float)
    hits, given = rows - np.eye(10)[0] * 10, rows - np.eye(10)[0] * 10 + np.eye(10)[1] * 10
    few = intervals(drawn, LabelCounts(hits, rows, given), every.statistics(cases))["macro_f1"]
    # as if the rare labels had been right in a thousand times as many rows
    many = intervals(drawn, LabelCounts(hits * 1000, rows * 1000, given * 1000), every.statistics(cases))["macro_f1"]
    assert few[1] - few[0] > 1.2 * (many[1] - many[0])


def test_macro_f1_has_no_interval_where_labels_are_too_rare_for_one_to_hold() -> None:
    found = Answered(77, 0.8).intervals(150, np.random.default_rng(1))
    assert found["macro_f1"] is None
    assert found["withheld"]["macro_f1"].endswith("of 77 labels have fewer than 5 rows")
    assert found["accuracy"]
    assert Answered(77, 0.8).intervals(3_000, np.random.default_rng(1))["withheld"] == {}


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (10, 10), (98, 100), (1, 7), (450, 1_000)])
def test_the_interval_of_a_share_is_that_of_wilson(right: int, rows: int) -> None:
    expected = binomtest(right, rows).proportion_ci(method="wilson")
    assert wilson_interval(right / rows, rows) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_without_rows_a_share_may_be_anything() -> None:
    assert wilson_interval(0.0, 0) == [0.0, 1.0]
