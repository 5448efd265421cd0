"""Prompts: what is asked, what an answer means, which examples are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from labelmill.contracts.errors import MalformedAnswer, UnusableContent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.prompt import (
    answer_schema,
    check_answer,
    check_reply,
    request_body,
    system_message,
)
from labelmill_worker.train.sampling import sample_per_label

SCHEMA = LabelSchema((Target("intent", ("play", "stop", "other")), Target("tags", ("loud", "soft"), multi=True)))


def test_the_schema_of_an_answer_has_the_labels_as_enums() -> None:
    found = answer_schema(SCHEMA)
    assert found["properties"]["intent"] == {"type": "string", "enum": ["play", "stop", "other"]}
    assert found["properties"]["tags"]["items"]["enum"] == ["loud", "soft"]
    assert found["required"] == ["intent", "tags"]
    assert found["additionalProperties"] is False


def test_descriptions_stand_beside_their_labels_and_one_of_a_target_wins() -> None:
    said = system_message(SCHEMA, {"play": "start music", "stop": "any", "intent.stop": "end music"})
    assert "- play: start music\n- stop: end music\n- other\n" in said


def test_examples_are_turns_before_the_text() -> None:
    recipe = {"system": "s", "answer_schema": answer_schema(SCHEMA)}
    shown = [{"text": "go", "labels": {"intent": "play", "tags": ["loud"]}}]
    body = request_body("m", recipe, SCHEMA, "halt", shown)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert orjson.loads(body["messages"][2]["content"]) == {"intent": "play", "tags": ["loud"]}
    assert body["messages"][-1]["content"] == "halt"
    assert body["response_format"]["json_schema"]["strict"] is True


def test_chosen_labels_score_one_and_the_others_nothing() -> None:
    intent, tags = check_answer('{"intent":"stop","tags":["soft","loud"]}', SCHEMA)
    assert (intent.tolist(), tags.tolist()) == ([[0, 1, 0]], [[1, 1]])
    assert check_answer('{"intent":"stop","tags":[]}', SCHEMA)[1].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "content",
    [
        "stop",
        "[]",
        '{"intent":"stop"}',
        '{"intent":"stop","tags":[],"more":1}',
        '{"intent":"halt","tags":[]}',
        '{"intent":["stop"],"tags":[]}',
        '{"intent":"stop","tags":"loud"}',
        '{"intent":"stop","tags":[1]}',
        '{"intent":null,"tags":[]}',
        "",
    ],
)
def test_an_answer_off_the_schema_counts_as_malformed(content: str) -> None:
    with pytest.raises(MalformedAnswer):
        check_answer(content, SCHEMA)


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"intent":"stop","tags":["loud"]}\n```',
        '```\n{"intent":"stop","tags":["loud"]}\n```\n',
        '```json {"intent":"stop","tags":["loud"]}```',
        ' \n{"intent":"stop","tags":["loud"]}\n ',
        '{"intent":" stop\\n","tags":["loud "]}',
        '{"intent":"STOP","tags":["Loud"]}',
        '{"Intent":"stop"," tags ":["loud"]}',
    ],
)
def test_a_fence_white_space_and_the_case_of_letters_do_not_count(content: str) -> None:
    intent, tags = check_answer(content, SCHEMA)
    assert (intent.tolist(), tags.tolist()) == ([[0, 1, 0]], [[1, 0]])


def test_labels_that_differ_by_case_alone_are_told_apart_and_never_guessed() -> None:
    schema = LabelSchema((Target("unit", ("mW", "MW", " mw")),))
    assert check_answer('{"unit":"MW"}', schema)[0].tolist() == [[0, 1, 0]]
    assert check_answer('{"unit":" MW "}', schema)[0].tolist() == [[0, 1, 0]]
    assert check_answer('{"unit":" mw"}', schema)[0].tolist() == [[0, 0, 1]]
    with pytest.raises(UnusableContent, match="none of the labels"):
        check_answer('{"unit":"Mw"}', schema)


@pytest.mark.parametrize(
    ("content", "finish", "words"),
    [
        ("", "content_filter", "filtered"),
        ("{", "length", "cut short"),
        ("  ", "stop", "empty"),
        ("I cannot help with that.", "stop", "'I cannot help with that.'"),
        ("x" * 900, "stop", "…"),
        ("``````", "stop", "not valid JSON"),
        ("```", "stop", "not valid JSON"),
    ],
)
def test_what_the_model_said_instead_of_an_answer_is_told(content: str, finish: str, words: str) -> None:
    with pytest.raises(UnusableContent, match=words) as raised:
        check_reply(content, finish, SCHEMA)
    assert len(str(raised.value)) < 200


def test_a_reply_of_a_model_that_failed_may_be_better_next_time() -> None:
    for finish in ("error", "no choice"):
        with pytest.raises(MalformedAnswer) as raised:
            check_reply("", finish, SCHEMA)
        assert not isinstance(raised.value, UnusableContent)


def rows(count: int) -> list[tuple[str, dict[str, Any]]]:
    intents = SCHEMA.targets[0].labels
    return [
        (
            f"text {number}",
            {"intent": "other" if number == 7 else intents[number % 2], "tags": ["loud", "soft"][: number % 3]},
        )
        for number in range(count)
    ]


def test_the_sample_has_every_label_as_often_as_asked_for_where_there_are_so_many() -> None:
    sample = sample_per_label(rows(100), SCHEMA, 3, 100)
    intents = [one["labels"]["intent"] for one in sample]
    assert min(intents.count("play"), intents.count("stop")) >= 3
    assert intents.count("other") == 1
    assert sum("soft" in one["labels"]["tags"] for one in sample) >= 3
    assert len(sample) <= 12


def test_the_same_rows_give_the_same_sample_in_any_order() -> None:
    assert sample_per_label(rows(200), SCHEMA, 2, 100) == sample_per_label(rows(200)[::-1], SCHEMA, 2, 100)


def test_a_sample_is_never_larger_than_allowed() -> None:
    assert len(sample_per_label(rows(200), SCHEMA, 50, 20)) == 20


def test_the_nearest_examples_of_each_label_are_shown_the_nearest_last() -> None:
    schema = LabelSchema((Target("intent", ("play", "stop")),))
    places = [(0.0, "play"), (0.1, "play"), (0.5, "stop"), (1.5, "stop"), (0.05, "play")]
    vectors = np.array([[np.cos(angle), np.sin(angle)] for angle, _ in places], np.float32)
    pool = ExamplePool.of(
        schema, [{"text": str(n), "labels": {"intent": i}} for n, (_, i) in enumerate(places)], vectors
    )
    shown = pool.nearest(np.array([[1.0, 0.0]], np.float32), 2)
    assert [one["text"] for one in shown] == ["3", "2", "4", "0"]
    of_several = pool.nearest(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), 1)
    assert [one["text"] for one in of_several] == ["3", "0"]
