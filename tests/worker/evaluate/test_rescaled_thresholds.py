"""Thresholds keep their meaning when a version's scores change their scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.evaluate.rescaled_thresholds import NewScale, rescaled_thresholds
from labelmill_worker.inference.models.head import NEVER, Head
from labelmill_worker.inference.models.temperature import at_temperatures, scaled

ONE = Target("intent", ("a", "b", "c", "d"))
SEVERAL = Target("tags", ("x", "y", "z"), multi=True)
SCHEMA = LabelSchema((ONE, SEVERAL))
TEMPERATURES = st.sampled_from([0.3, 0.7, 1.0, 1.8, 5.0])


def some_scores(seed: int, rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(4, 0.4), rows), rng.beta(0.5, 1.5, (rows, 3))


@given(seed=st.integers(0, 1_000), before=TEMPERATURES, after=TEMPERATURES, limit=st.floats(0.02, 0.98))
def test_no_multi_label_answer_changes_with_the_scale_alone(
    seed: int, before: float, after: float, limit: float
) -> None:
    raw = some_scores(seed)[1]
    for given_thresholds in ({"tags": dict.fromkeys(SEVERAL.labels, limit)}, {"*": limit}):
        found = rescaled_thresholds(given_thresholds, SCHEMA, {"tags": before}, {"tags": NewScale(SEVERAL, after, raw)})
        limits = np.array([(found or {})["tags"][label] for label in SEVERAL.labels], np.float32)
        old = scaled(raw, before, multi=True).astype(np.float32) >= np.float32(limit)
        new = scaled(raw, after, multi=True).astype(np.float32) >= limits
        assert (old == new).all()


@given(seed=st.integers(0, 1_000), before=TEMPERATURES, after=TEMPERATURES, limit=st.floats(0.26, 0.98))
def test_as_many_validation_rows_abstain_on_the_new_scale(seed: int, before: float, after: float, limit: float) -> None:
    raw = some_scores(seed)[0]
    found = rescaled_thresholds({"intent": limit}, SCHEMA, {"intent": before}, {"intent": NewScale(ONE, after, raw)})
    old, new = (
        scaled(raw, one, multi=False).max(axis=1).astype(np.float32) - np.float32(threshold)
        for one, threshold in ((before, limit), (after, (found or {})["intent"]))
    )
    alike = int((new == 0).sum())  # float32 does not tell them from the threshold
    assert abs(int((old < 0).sum()) - int((new < 0).sum())) <= alike


def test_thresholds_that_mean_the_same_on_every_scale_stay() -> None:
    one, several = some_scores(1)
    new = {"intent": NewScale(ONE, 3.0, one), "tags": NewScale(SEVERAL, 3.0, several)}
    assert rescaled_thresholds(None, SCHEMA, {}, new) is None
    for limit in (0.0, 0.1, 1.0):
        assert (rescaled_thresholds({"intent": limit}, SCHEMA, {}, new) or {})["intent"] == limit
    halves = rescaled_thresholds({"tags": {"x": 0.5, "y": 1.0}}, SCHEMA, {}, new)
    assert (halves or {})["tags"] == {"x": pytest.approx(0.5), "y": 1.0}


def test_a_head_at_a_temperature_gives_its_scores_at_that_temperature() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(8, len(target.labels))).astype(np.float32) for target in SCHEMA.targets]
    intercepts = [np.zeros(len(target.labels), np.float32) for target in SCHEMA.targets]
    weights[0][:, 3], intercepts[0][3] = 0, NEVER  # a label that no row of train had
    head = Head(SCHEMA, weights, intercepts)
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    raw, temperatures = head.scores(vectors), {"intent": 2.5, "tags": 0.6}
    found = head.at_temperatures(temperatures).scores(vectors)
    for one, other in zip(found, at_temperatures(raw, SCHEMA, temperatures), strict=True):
        assert np.abs(one - other).max() < 2e-5
    assert found[0][:, 3].max() < 1e-11
    assert all(map(np.array_equal, head.at_temperatures({}).scores(vectors), raw))


def test_scores_that_are_no_probabilities_have_no_temperature() -> None:
    scores = [np.array([[3.0, 1.0, -2.0, 0.0]], np.float32), np.array([[0.2, 0.5, 0.9]], np.float32)]
    found = at_temperatures(scores, SCHEMA, {"intent": 2.0, "tags": 2.0})
    assert np.array_equal(found[0], scores[0])
    assert not np.array_equal(found[1], scores[1])
