"""F1 by every function that computes it, against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import f1_score

from labelmill.contracts.label_schema import Target
from labelmill_worker.evaluate import f1
from labelmill_worker.train.heads import fit
from labelmill_worker.train.heads.thresholds import best_threshold

INDICATORS = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)
SCORED = st.integers(1, 40).flatmap(
    lambda rows: st.tuples(
        arrays(np.float32, rows, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])),
        arrays(np.bool_, rows),
    )
)


def of_sklearn(real: Any, answers: Any, average: str, **options: Any) -> float:
    return float(f1_score(real, answers, average=average, zero_division=0, **options))


@given(INDICATORS)
@settings(max_examples=200, deadline=None)
def test_averages_over_a_multi_label_target_are_those_of_scikit_learn(both: tuple[Any, Any]) -> None:
    real, answers = both

    found = f1.averages(*f1.counts(real, answers), present_only=False)

    if real.shape[1] == 1:  # scikit-learn takes a single column for one question with two answers
        expected = {name: of_sklearn(real, answers, "binary") for name in ("macro_f1", "micro_f1")}
    else:
        expected = {f"{average}_f1": of_sklearn(real, answers, average) for average in ("macro", "weighted", "micro")}
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected)


@given(INDICATORS)
@settings(max_examples=100, deadline=None)
def test_a_fitted_head_reports_the_f1_that_an_evaluation_reports(both: tuple[Any, Any]) -> None:
    """Also where a label has no row and is never given: it counts as 0, and is not left out."""
    real, answers = both
    target = Target("topics", tuple(map(str, range(real.shape[1]))), multi=True)

    report = fit._measure(answers.astype(np.float32), real, target, None)

    averages = f1.averages(*f1.counts(real, answers), present_only=False)
    assert report["macro_f1"] == pytest.approx(float(averages["macro_f1"]), abs=1e-6)
    assert report["micro_f1"] == pytest.approx(float(averages["micro_f1"]), abs=1e-6)


@given(SCORED)
@settings(max_examples=200, deadline=None)
def test_no_threshold_has_a_better_f1_than_the_one_that_is_chosen(scored: tuple[Any, Any]) -> None:
    scores, real = scored

    threshold = best_threshold(scores, real)

    if threshold is None:
        assert real.all() or not real.any()
        return
    tried = {float(one): of_sklearn(real, scores >= one, "binary") for one in np.unique(scores)}
    assert of_sklearn(real, scores >= threshold, "binary") == pytest.approx(max(tried.values()))
