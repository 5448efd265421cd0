"""Answers that are decoded straight into arrays say what they say when they are decoded as any JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference import score_decoding
from labelmill_worker.inference.answers import check_scores
from labelmill_worker.inference.score_decoding import DecodedResults, decoder_of, read_scores
from labelmill_worker.mistral.replies import read_reply

SCHEMA = LabelSchema((Target("intent", ("a", "b", "c")), Target("tone", ("calm",))))

_NUMBERS = st.one_of(st.floats(0, 1), st.integers(-2, 2), st.sampled_from([1e300, -1e39, 10**400, 1e-320]))
_ODD = st.one_of(_NUMBERS, st.none(), st.booleans(), st.text(max_size=2), st.just([]), st.just({}))


def good_result(numbers: Any = (0.2, 0.7, 0.1, 1.0)) -> dict[str, Any]:
    """One text's, in an order of labels that is not the schema's."""
    a, b, c, calm = numbers
    return {"intent": {"scores": {"c": c, "a": a, "b": b}}, "tone": {"scores": {"calm": calm}}}


@pytest.fixture(autouse=True)
def _order_is_known() -> None:
    score_decoding._decoders.clear()
    assert decoder_of(SCHEMA) is None
    read_scores([good_result()], 1, SCHEMA)


def outcomes(document: Any, count: int) -> tuple[Any, Any]:
    """The scores in a reply, or what is wrong with it: decoded straight, and as any JSON."""
    found: list[Any] = []
    for decode in (decoder_of(SCHEMA), None):
        try:
            results = read_reply(200, json.dumps(document).encode(), decode=decode).document.get("results")
            read = check_scores if decode is None else read_scores
            found.append([scores.tolist() for scores in read(results, count, SCHEMA)])
        except MalformedAnswer as error:
            found.append(error.message)
    return found[0], found[1]


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5), st.integers(1, 5))
def test_good_answers_become_the_same_scores(rows: list[tuple[float, ...]], count: int) -> None:
    straight, as_any_json = outcomes({"results": [good_result(row) for row in rows]}, count)
    assert straight == as_any_json


@given(
    st.lists(
        st.one_of(
            st.tuples(*[_NUMBERS] * 4).map(good_result),
            st.tuples(*[_ODD] * 4).map(good_result),
            st.fixed_dictionaries({"intent": st.just({"scores": {"a": 1, "b": 0, "x": 0}}), "tone": st.none()}),
            st.just(good_result() | {"further": {"scores": {}}}),
            _ODD,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_bad_answers_are_refused_in_the_same_words(results: list[Any]) -> None:
    straight, as_any_json = outcomes({"results": results}, len(results))
    assert straight == as_any_json


def test_usage_is_kept_and_further_fields_do_no_harm() -> None:
    document = {"id": "x", "results": [good_result()], "usage": {"prompt_tokens": 7}, "model": {"more": [1]}}
    reply = read_reply(200, json.dumps(document).encode(), decode=decoder_of(SCHEMA))
    assert isinstance(reply.document["results"], DecodedResults)
    assert reply.tokens == 7


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"{", b"[]", b"null", b'{"results": [', b"\xff"),
        json.dumps({"results": [good_result()]}).encode().replace(b"calm", b"ca\xff"),
        json.dumps({"results": [good_result()], "usage": {"a": 1}}).encode().replace(b'"a": 1', b'"\xff": 1'),
    ],
)
def test_what_is_no_json_object_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read_reply(200, payload, decode=decoder_of(SCHEMA))


def test_another_order_of_labels_is_learnt() -> None:
    results = [{"tone": {"scores": {"calm": 1}}, "intent": {"scores": {"b": 0.5, "c": 0.25, "a": 0.125}}}]
    scores = read_scores(results, 1, SCHEMA)
    again = read_reply(200, json.dumps({"results": results}).encode(), decode=decoder_of(SCHEMA)).document["results"]
    assert isinstance(again, DecodedResults)
    assert [values.tolist() for values in again.scores] == [values.tolist() for values in scores]
    assert [values.tolist() for values in scores] == [[[0.125, 0.5, 0.25]], [[1.0]]]
    assert scores[0].dtype == np.float32


@pytest.mark.parametrize("labels", [('with "quotes"', "b"), tuple(f"label {n}" for n in range(65))])
def test_some_labels_are_left_to_the_ordinary_way(labels: tuple[str, ...]) -> None:
    schema = LabelSchema((Target("intent", labels),))
    results = [{"intent": {"scores": dict.fromkeys(labels, 0.5)}}]
    for _ in range(2):
        assert read_scores(results, 1, schema)[0].tolist() == [[0.5] * len(labels)]
        assert decoder_of(schema) is None
