"""When a report speaks of drift, and when it does not: rates over seeded samples."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency

from labelmill.report.drift import AnswerCounts, Drift, drift_between, moved_labels
from labelmill.report.two_samples import bins_p_value, label_sets_p_value, labels_p_value

LABELS = [f"label {number}" for number in range(40)]
SHARES = np.random.default_rng(0).dirichlet(np.full(40, 2.0))
SAMPLES = 150


def counted(labels: np.ndarray, best: np.ndarray) -> AnswerCounts:
    counts = Counter(LABELS[at] for at in labels.tolist())
    return AnswerCounts(len(labels), counts, np.histogram(best, 20, (0, 1))[0].tolist())


def sample(rows: int, rng: np.random.Generator, foreign: float = 0.0) -> AnswerCounts:
    """Answers to texts that the model knows; it is less sure of a share of foreign ones, and gives them some labels."""
    labels, best = rng.choice(40, rows, p=SHARES), rng.beta(6, 1.5, rows)
    of_them = int(rows * foreign)
    labels[:of_them], best[:of_them] = rng.integers(0, 40, of_them), rng.beta(3, 3, of_them)
    return counted(labels, best)


def drift_of(rows: int, seed: int, foreign: float = 0.0, before: int = 700) -> Drift:
    rng = np.random.default_rng([seed, rows])
    found = drift_between(sample(before, rng), sample(rows, rng, foreign), "validation", multi=False)
    assert found is not None
    return found


@pytest.mark.parametrize("rows", [20, 100, 500, 2_000])
def test_samples_of_the_same_texts_hardly_ever_drift(rows: int) -> None:
    alarms = sum(drift_of(rows, seed).tone in ("warning", "bad") for seed in range(SAMPLES))
    assert alarms <= binom.ppf(0.999, SAMPLES, 0.01)


def test_a_few_rows_against_many_and_many_against_a_few_do_not_drift() -> None:
    found = [drift_of(rows, seed, before=before) for rows, before in ((60, 50_000), (50_000, 60)) for seed in range(40)]
    assert sum(one.tone in ("warning", "bad") for one in found) <= binom.ppf(0.999, 80, 0.01)


@pytest.mark.parametrize(("rows", "foreign", "at_least"), [(100, 0.3, 0.9), (500, 0.2, 0.95), (2_000, 0.2, 1.0)])
def test_foreign_texts_are_found_though_they_get_the_same_labels(rows: int, foreign: float, at_least: float) -> None:
    found = [drift_of(rows, seed, foreign) for seed in range(40)]
    alarms = [one for one in found if one.tone in ("warning", "bad")]
    assert len(alarms) >= binom.ppf(0.001, 40, at_least)
    assert all("less sure of these texts than of the validation split" in one.verdict for one in alarms)


def test_other_labels_drift_and_those_that_moved_are_named() -> None:
    rng = np.random.default_rng(3)
    before, now = sample(700, rng), sample(700, rng)
    assert now.labels is not None
    moved = AnswerCounts(1_400, Counter(now.labels) + Counter({"label 0": 700}), None)
    found = drift_between(before, moved, "test", multi=False)
    assert found is not None
    assert found.tone == "bad"
    assert "Strong drift: the labels are not spread as in the test split" in found.verdict
    assert "label a sample" in found.verdict
    assert moved_labels(before, moved)[0][0] == "label 0"


def test_where_a_change_of_many_rows_may_go_unnoticed_the_page_says_so() -> None:
    few, enough = drift_of(20, 0), drift_of(2_000, 0)
    assert few.verdict.startswith("Too few rows to tell drift")
    assert few.unnoticed > 0.3 > enough.unnoticed
    assert f"fewer than {enough.unnoticed:.0%} of the rows may go unnoticed" in enough.verdict


def test_labels_that_go_together_are_no_drift() -> None:
    alarms = 0
    for seed in range(SAMPLES):
        rng = np.random.default_rng(seed)
        answers = []
        for rows in (600, 300):
            several = (rng.random((rows, 5)) < 0.2).repeat(8, axis=1)  # eight labels always together
            answers.append(AnswerCounts(rows, dict(zip(LABELS, several.sum(axis=0).tolist(), strict=True)), None))
        found = drift_between(*answers, "validation", multi=True)
        assert found is not None
        alarms += found.tone != "good"
    assert alarms <= binom.ppf(0.999, SAMPLES, 0.01)


def test_one_of_several_labels_that_is_given_far_more_often_is_drift() -> None:
    before, now = AnswerCounts(600, {"a": 60, "b": 300}, None), AnswerCounts(300, {"a": 75, "b": 150}, None)
    found = drift_between(before, now, "validation", multi=True)
    assert found is not None
    assert found.tone == "warning"


def test_p_values_are_those_of_the_usual_tests_where_rows_are_many() -> None:
    rng = np.random.default_rng(1)
    for seed in range(5):
        one, other = rng.multinomial(3_000, np.full(6, 1 / 6)), rng.multinomial(900 + seed, np.full(6, 1 / 6))
        expected = chi2_contingency([one, other], correction=False).pvalue
        assert labels_p_value(one.tolist(), other.tolist()) == pytest.approx(expected, abs=0.08)


def test_a_fall_of_scores_is_as_likely_as_in_permuted_rows() -> None:
    rng = np.random.default_rng(2)
    old, new = np.floor(rng.beta(6, 1.5, 90) * 20), np.floor(rng.beta(6, 2.2, 50) * 20)
    both = np.concatenate([old, new])

    def unlike(rows: np.ndarray) -> float:
        below = np.array([(both <= edge).mean() for edge in range(20)])
        gaps = np.array([(rows <= edge).mean() for edge in range(20)]) - below
        weights = np.array([(both == edge).sum() for edge in range(20)])
        inside = (below > 0) & (below < 1)
        return float((gaps**2 * weights / np.where(inside, below * (1 - below), np.inf)).sum())

    real = unlike(new)
    drawn = [unlike(rng.permutation(both)[:50]) >= real for _ in range(1_500)]
    found = bins_p_value(*(np.bincount(one.astype(int), minlength=20).tolist() for one in (old, new)))
    assert found == pytest.approx(np.mean(drawn), abs=0.02)


def test_the_smallest_p_value_is_below_what_is_believed_however_many_labels_there_are() -> None:
    rows = [10] * 5_000
    assert labels_p_value([*rows, 0], [*([0] * 5_000), 60_000]) < 0.005
    assert label_sets_p_value([0] * 5_000, 1_000, [900] * 5_000, 1_000) < 0.005


def test_scores_of_1_and_0_alone_are_not_tested() -> None:
    before = AnswerCounts(100, {"a": 50, "b": 50}, [0] * 19 + [100])
    found = drift_between(before, before, "validation", multi=False)
    assert found is not None
    assert (found.p_scores, found.level) == (None, 0.01)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (AnswerCounts(0, {}, None), AnswerCounts(9, {"a": 9}, None)),
        (AnswerCounts(99, {"a": 99}, None), AnswerCounts(99, {"a": 99}, None)),
        (AnswerCounts(99, None, [99] + [0] * 19), AnswerCounts(99, {"a": 99}, [99] + [0] * 19)),
    ],
)
def test_without_rows_or_anything_that_differs_there_is_nothing_to_compare(
    before: AnswerCounts, now: AnswerCounts
) -> None:
    assert drift_between(before, now, "validation", multi=False) is None
