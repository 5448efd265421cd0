"""Planning requests, checking answers, deciding labels: no I/O."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.answers import check_scores, decide, label_limits, learn_schema, threshold_of
from labelmill_worker.inference.planning import MAX_REQUEST_CHARS, Request, plan_requests

SCHEMA = LabelSchema((Target("intent", ("a", "b", "c")),))
GOOD = {"intent": {"scores": {"a": 0.2, "b": 0.7, "c": 0.1}}}


@given(st.lists(st.integers(1, 60_000), max_size=200), st.integers(1, 50))
def test_every_row_is_in_exactly_one_request_and_no_request_is_too_large(lengths: list[int], per_request: int) -> None:
    rows = list(range(10, 10 + len(lengths)))
    texts = ["x" * length for length in lengths]
    requests = list(plan_requests(rows, texts, per_request))
    assert [row for request in requests for row in request.rows] == rows
    for request in requests:
        assert 1 <= len(request) <= per_request
        assert len(request) == 1 or sum(map(len, request.texts)) <= MAX_REQUEST_CHARS


def test_a_text_longer_than_a_request_may_be_goes_alone() -> None:
    texts = ["short", "y" * 300_000, "short too"]
    assert [list(request.rows) for request in plan_requests([0, 1, 2], texts, 100)] == [[0], [1], [2]]


def test_halves_hold_the_same_rows() -> None:
    left, right = Request([1, 2, 3], ["a", "b", "c"]).halves()
    assert [*left.rows, *right.rows] == [1, 2, 3]
    assert [*left.texts, *right.texts] == ["a", "b", "c"]


def test_scores_come_in_label_order_whatever_order_the_answer_has() -> None:
    shuffled = {"intent": {"scores": {"c": 0.1, "a": 0.2, "b": 0.7}}}
    (scores,) = check_scores([GOOD, shuffled], 2, SCHEMA)
    assert scores.dtype == np.float32
    assert scores.tolist() == [pytest.approx([0.2, 0.7, 0.1])] * 2


@pytest.mark.parametrize(
    "results",
    [
        [],
        [GOOD, GOOD],
        None,
        {"intent": 1},
        [{"intent": {"scores": {"a": 0.2, "b": 0.8}}}],
        [{"intent": {"scores": {"a": 0.2, "b": 0.7, "c": 0.1, "d": 0.0}}}],
        [{"intent": {"scores": {"a": 0.2, "b": 0.7, "x": 0.1}}}],
        [{"other": {"scores": {"a": 0.2, "b": 0.7, "c": 0.1}}}],
        [GOOD | {"other": {"scores": {}}}],
        [{"intent": {"scores": {"a": math.nan, "b": 0.7, "c": 0.1}}}],
        [{"intent": {"scores": {"a": 0.2, "b": 0.7, "c": math.nan}}}],
        [{"intent": {"scores": {"a": math.inf, "b": 0.7, "c": 0.1}}}],
        [{"intent": {"scores": {"a": 0.2, "b": -math.inf, "c": 0.1}}}],
        [{"intent": {"scores": {"a": 0.2, "b": 0.7, "c": 1e39}}}],
        [{"intent": {"scores": {"a": None, "b": 0.7, "c": 0.1}}}],
        [{"intent": {"scores": {"a": "0.2", "b": "0.7", "c": "0.1"}}}],
        [{"intent": {"scores": [0.2, 0.7, 0.1]}}],
        [{"intent": None}],
        ["text"],
        [None],
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_an_answer_that_is_not_exactly_as_expected_is_not_believed(results: object, count: int) -> None:
    answered = [*results, GOOD] if isinstance(results, list) and count == 2 else results
    with pytest.raises(MalformedAnswer):
        check_scores(answered, count, SCHEMA)


def test_a_raw_model_s_labels_are_those_of_its_answer() -> None:
    schema = learn_schema([{"mood": {"scores": {"sad": 0.1, "glad": 0.9}}}], multi=("mood",))
    assert schema.targets == (Target("mood", ("glad", "sad"), multi=True),)


def test_a_row_under_the_threshold_abstains_and_one_at_it_does_not() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]], np.float32)
    assert decide(scores, SCHEMA.targets[0], 0.5).labels == ["b", "a"]
    decided = decide(scores, SCHEMA.targets[0], 0.6)
    assert decided.labels == [None, "a"]
    assert decided.abstained.tolist() == [True, False]
    assert decided.best.tolist() == pytest.approx([0.5, 0.9])


@pytest.mark.parametrize("score", [0.1, 0.6, 0.7, 0.9])
def test_a_score_that_is_shown_as_the_threshold_reaches_it(score: float) -> None:
    kept = np.array([[score, 0.0, 0.0]], np.float32)  # of 0.7 a little less than 0.7
    assert decide(kept, SCHEMA.targets[0], score).labels == ["a"]


def test_a_multi_label_row_has_every_label_from_half_on() -> None:
    target = Target("topic", ("x", "y", "z"), multi=True)
    decided = decide(np.array([[0.9, 0.5, 0.1], [0.1, 0.2, 0.3]], np.float32), target, None)
    assert [json.loads(found or "null") for found in decided.label_lists] == [["x", "y"], []]


def test_a_model_s_threshold_for_all_is_the_limit_of_every_label() -> None:
    target = Target("topic", ("x", "y"), multi=True)
    scores = np.array([[0.7, 0.69]], np.float32)
    assert decide(scores, target, None, label_limits(target, {"*": 0.7})).label_lists == ['["x"]']
    assert decide(scores, target, None, label_limits(target, {"*": 0.7, "topic": {"y": 0.6}})).label_lists == [
        '["x","y"]'
    ]


def test_a_target_s_own_threshold_comes_before_the_one_for_all() -> None:
    assert threshold_of("intent", {"*": 0.3, "intent": 0.7}) == 0.7
    assert threshold_of("other", {"*": 0.3}, {"other": 0.9}) == 0.3
    assert threshold_of("intent", {}, {"intent": 0.9}) == 0.9
    assert threshold_of("intent", None) is None
