"""Scores from the log-probabilities of tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_model import choice_of

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.numbered_prompt import check_numbered_reply
from labelmill_worker.inference.models.prompt import check_reply
from labelmill_worker.inference.models.temperature import at_temperatures
from labelmill_worker.inference.models.token_probabilities import read_tokens
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.logprobs_check import CHECK_SCHEMA, CHECK_TEXT, LogprobsCheck
from labelmill_worker.ports.inference import Reply

LABELS = ("play", "play music", "stop", "stop it", 'say "hi"', "Grüße", "日本語")
SCHEMA = LabelSchema((Target("intent", LABELS), Target("tags", ("loud", "soft"), multi=True)))
SHARES = {"play": 0.4, "play music": 0.25, "stop": 0.2, "stop it": 0.1, 'say "hi"': 0.03, "Grüße": 0.02}


def scores_of(choice: dict[str, Any], schema: LabelSchema = SCHEMA) -> list[Any]:
    content = choice["message"]["content"]
    tokens = read_tokens({"choices": [choice]}, content)
    return [scores.tolist() for scores in check_reply(content, "stop", schema, tokens)]


def answer(shares: dict[str, float], before: str = '{"intent": ', after: str = ', "tags": ["loud"]}') -> list[Any]:
    return [(before, None), ("", shares), (after, None)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
def test_a_label_scores_the_probability_of_its_tokens_however_they_are_cut(size: int) -> None:
    intent, tags = scores_of(choice_of(answer(SHARES), top=20, size=size))
    assert intent[0][:2] == pytest.approx([0.4, 0.25], abs=1e-6)
    assert sum(intent[0][2:5]) == pytest.approx(0.33, abs=1e-6)  # all begin with the same letter
    if size == 100:
        assert intent[0] == pytest.approx([SHARES.get(label, 0.0) for label in LABELS], abs=1e-6)
    assert tags == [[1, 0]]  # of a list the tokens say no probability


def test_the_labels_that_are_not_returned_share_what_is_left() -> None:
    (intent, _) = scores_of(choice_of(answer(SHARES), top=2, size=100))
    assert intent[0][:2] == pytest.approx([0.4, 0.25], abs=1e-6)
    assert intent[0][2:] == pytest.approx([0.35 / 5] * 5, abs=1e-6)


@given(
    st.dictionaries(st.sampled_from(LABELS), st.floats(0.01, 1.0), min_size=1),
    st.integers(1, 12),
    st.integers(1, 30),
)
def test_scores_are_shares_whatever_is_returned(weights: dict[str, float], size: int, top: int) -> None:
    total = sum(weights.values())
    shares = {label: weight / total for label, weight in weights.items()}
    (intent, _) = scores_of(choice_of(answer(shares), top=top, size=size))
    assert math.fsum(intent[0]) == pytest.approx(1, abs=1e-5)
    assert min(intent[0]) >= 0
    if top == 30 and size == 12:
        assert intent[0] == pytest.approx([shares.get(label, 0.0) for label in LABELS], abs=1e-5)


def test_what_cannot_begin_a_label_and_other_ways_to_write_it_are_left_out() -> None:
    choice = choice_of(answer({"play": 0.5, "stop": 0.25}), size=100)
    (label,) = [entry for entry in choice["logprobs"]["content"] if entry["token"] == '"play"']
    assert label["logprob"] == pytest.approx(math.log(2 / 3))
    label["logprob"] = math.log(0.5)
    label["top_logprobs"] = [
        {"token": '"play"', "logprob": math.log(0.5)},
        {"token": ' "stop"', "logprob": math.log(0.2)},
        {"token": '"st', "logprob": math.log(0.1)},  # one of the two that begin so
        {"token": '"', "logprob": math.log(0.1)},  # any of them
        {"token": "null", "logprob": math.log(0.1)},
    ]
    (intent, _) = scores_of(choice)
    assert intent[0] == pytest.approx([0.5 / 0.8, 0, 0.25 / 0.8, 0.05 / 0.8, 0, 0, 0], abs=1e-6)


def test_a_token_may_hold_more_than_the_label() -> None:
    entries = [
        {"token": '{"intent":"', "logprob": -0.1, "top_logprobs": [{"token": '{"intent": ', "logprob": -3.0}]},
        {
            "token": 'play","',
            "logprob": math.log(0.75),
            "top_logprobs": [{"token": 'stop","t', "logprob": math.log(0.25)}],
        },
        {"token": 'tags":[]}', "logprob": 0.0, "top_logprobs": []},
        {"token": "</s>", "logprob": 0.0, "top_logprobs": []},
    ]
    choice = {"message": {"content": '{"intent":"play","tags":[]}'}, "logprobs": {"content": entries}}
    (intent, _) = scores_of(choice)
    assert intent[0] == pytest.approx([0.75, 0, 0.25, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("dress", ["```json\n{}\n```", "\n {} "])
def test_a_fence_and_white_space_do_not_hide_the_tokens(dress: str) -> None:
    before, after = dress.split("{}")
    choice = choice_of([(f'{before}{{"intent":', None), ("", SHARES), (f',"tags":[]}}{after}', None)], top=20)
    choice["message"]["content"] = choice["message"]["content"].strip()
    assert scores_of(choice)[0][0][0] == pytest.approx(0.4, abs=1e-6)


def test_text_before_the_label_may_be_in_any_script() -> None:
    schema = LabelSchema((Target("größe", ("groß", "klein")), Target("2", ("a", "b"))))
    choice = choice_of(
        [
            ('{"größe":', None),
            ("", {"groß": 0.7, "klein": 0.3}),
            (',"2":', None),
            ("", {"a": 0.1, "b": 0.9}),
            ("}", None),
        ]
    )
    first, second = scores_of(choice, schema)
    assert (first[0], second[0]) == (pytest.approx([0.7, 0.3], abs=1e-6), pytest.approx([0.1, 0.9], abs=1e-6))


def test_each_of_several_texts_has_probabilities_of_its_own() -> None:
    schema = LabelSchema((Target("intent", ("play", "stop")),))
    wanted = [{"play": 0.9, "stop": 0.1}, {"play": 0.2, "stop": 0.8}]
    choice = choice_of(
        [
            ('{"answers":[{"number":2,"intent":', None),
            ("", wanted[1]),
            ('},{"number":1,"intent":', None),
            ("", wanted[0]),
            ("}]}", None),
        ]
    )
    content = choice["message"]["content"]
    (intent,) = check_numbered_reply(content, "stop", schema, 2, read_tokens({"choices": [choice]}, content))
    assert intent == pytest.approx(np.array([[0.9, 0.1], [0.2, 0.8]]), abs=1e-6)


BARE = [[1, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "something else", "logprob": -0.1}]},
        {"content": [{"token": '{"intent":"play","tags":[]}'}]},
        {"content": [{"token": '{"intent":"play","tags":[]}', "logprob": "-0.1"}]},
        {"content": [{"token": '{"intent":"play","tags":[]}', "logprob": 3.0}]},
        {"content": [{"token": '{"intent":"play","tags":[]}', "logprob": math.nan}]},
        {"content": [{"token": 7, "logprob": -0.1}]},
        {"content": [{"token": "x", "bytes": [300], "logprob": -0.1}]},
        {"content": [{"token": '{"intent":"pl', "logprob": -math.inf}, {"token": 'ay","tags":[]}', "logprob": -0.1}]},
    ],
)
def test_without_tokens_that_fit_the_answer_a_label_scores_one(logprobs: Any) -> None:
    choice = {"message": {"content": '{"intent":"play","tags":[]}'}, "logprobs": logprobs}
    assert scores_of(choice)[0] == BARE


def _token(text: str, probability: float, *others: tuple[str, float]) -> dict[str, Any]:
    def entry(one: str, share: float) -> dict[str, Any]:
        return {"token": one, "logprob": math.log(share)}

    return entry(text, probability) | {"top_logprobs": [entry(*one) for one in ((text, probability), *others)]}


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("labels", [("ab", "ac", "b"), ("b", "ac", "ab")])
def test_the_label_that_was_written_is_the_answer_though_another_is_more_probable(
    labels: tuple[str, ...], temperature: float
) -> None:
    schema = LabelSchema((Target("intent", labels),))
    entries = [
        _token('{"intent":"', 1.0),
        _token("a", 0.55, ("b", 0.45)),
        _token("b", 0.6, ("c", 0.4)),
        _token('"}', 1.0),
    ]
    choice = {"message": {"content": '{"intent":"ab"}'}, "logprobs": {"content": entries}}
    (intent,) = scores_of(choice, schema)
    by_label = dict(zip(labels, intent[0], strict=True))
    whole = 0.33 + 0.22 + 0.33
    assert by_label == pytest.approx({"ab": 0.33 / whole, "ac": 0.22 / whole, "b": 0.33 / whole}, abs=1e-5)
    (scaled,) = at_temperatures([np.array(intent, np.float32)], schema, {"intent": temperature})
    assert labels[int(scaled.argmax())] == "ab"


@pytest.mark.parametrize(
    "hidden",
    ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "1" + "}" * 1000],
    ids=["lists", "objects"],
)
def test_content_that_hides_behind_a_repeated_key_costs_the_probabilities_alone(hidden: str) -> None:
    schema = LabelSchema((Target("intent", ("play", "stop")),))
    for content, count in (
        (f'{{"intent":{hidden},"intent":"play"}}', 1),
        (f'{{"answers":[{{"number":1,"intent":{hidden},"intent":"play"}},{{"number":2,"intent":"stop"}}]}}', 2),
    ):
        choice = choice_of([(content, None)], size=1000)
        tokens = read_tokens({"choices": [choice]}, content)
        assert tokens is not None
        if count == 1:
            assert check_reply(content, "stop", schema, tokens)[0].tolist() == [[1, 0]]
        else:
            assert check_numbered_reply(content, "stop", schema, 2, tokens)[0].tolist() == [[1, 0], [0, 1]]


def test_a_server_that_ignores_the_question_for_log_probabilities_does_not_tell_them() -> None:
    check = LogprobsCheck(ModelVersion("m", "logprobs", "m", None, {}))
    content = '{"side":"heads"}'
    bare = {"message": {"content": content}, "finish_reason": "stop"}
    told = choice_of([(content, None)])
    for choice, expected in ((bare, [0, 1]), (bare | {"logprobs": None}, [0, 1]), (told, [1, 0])):
        answer = check.read(Request([0], [CHECK_TEXT]), Reply({"choices": [choice]}), CHECK_SCHEMA)
        assert answer.scores[0].tolist() == [expected]


def test_a_label_in_another_dress_scores_one() -> None:
    choice = choice_of([('{"intent":"PLAY","tags":[]}', None)])
    assert scores_of(choice)[0] == BARE


def test_a_token_that_ends_within_a_character_is_read_by_its_bytes() -> None:
    written = orjson.dumps({"intent": "Grüße", "tags": []})
    cut = written.index("ü".encode()) + 1
    entries = [
        {"token": "\ufffd", "bytes": list(written[:cut]), "logprob": math.log(0.6), "top_logprobs": []},
        {"token": "\ufffd", "bytes": list(written[cut:]), "logprob": 0.0, "top_logprobs": []},
    ]
    choice = {"message": {"content": written.decode()}, "logprobs": {"content": entries}}
    (intent, _) = scores_of(choice)
    assert intent[0] == pytest.approx([0.4 / 6] * 5 + [0.6, 0.4 / 6], abs=1e-6)
