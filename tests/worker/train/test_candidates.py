"""`--candidates K`: only the labels nearest to a text are in its prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mistral_answers import label_of, refuse_texts_with
from school import SCHEMA, School, made_up_row, open_school, parts_of_page
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral

from labelmill.cli.summaries import summary_of
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.report.parts import Grid, Note
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.nearest_labels import NearestLabels, label_texts, longest_labels
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, has_labels_of, system_message
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt

TARGETS = LabelSchema(
    (Target("intent", ("east", "north", "west", "south")), Target("tags", ("up", "down"), multi=True))
)
NAMES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 0], [-1, 0]], np.float32)


def test_the_labels_nearest_to_any_text_are_named_in_their_own_order() -> None:
    labels = NearestLabels.of(TARGETS, NAMES, [], np.zeros((0, 2), np.float32))
    one = labels.among(np.array([[-2.0, 0.1]], np.float32), 2)
    assert [target.labels for target in one.targets] == [("north", "west"), ("up", "down")]
    several = labels.among(np.array([[-2.0, 0.1], [-0.1, -3.0]], np.float32), 2)
    assert [target.labels for target in several.targets] == [("north", "west", "south"), ("up", "down")]
    assert [target.multi for target in one.targets] == [False, True]
    assert labels.among(np.array([[1.0, 0.0]], np.float32), 9) == TARGETS


def test_examples_draw_a_label_towards_them_and_a_label_without_anything_is_never_near() -> None:
    names = NAMES.copy()
    names[3] = 0.0
    rows = [{"labels": {"intent": "north", "tags": ["up", "down"]}}] * 3
    labels = NearestLabels.of(TARGETS, names, rows, np.array([[5.0, 0.0]] * 3, np.float32))
    near = labels.among(np.array([[1.0, 0.0]], np.float32), 2)
    assert near.targets[0].labels == ("east", "north")
    assert not labels.vectors[0][3].any()
    assert NearestLabels.from_array(TARGETS, labels.array).vectors[1].tolist() == labels.vectors[1].tolist()


def test_a_label_is_embedded_by_its_name_and_its_description() -> None:
    schema = LabelSchema((Target("a", ("play_music", "stop")), Target("b", ("stop",))))
    assert label_texts(schema, {"stop": "end it", "b.stop": "end all"}) == [
        "play music",
        "stop: end it",
        "stop: end all",
    ]


def test_a_prompt_with_some_labels_is_planned_by_the_longest_ones() -> None:
    labels = tuple(f"label {number} {'x' * number}" for number in range(200))
    schema = LabelSchema((Target("intent", labels),))
    assert longest_labels(schema, {"label 3 xxx": "y" * 900}, 2).targets[0].labels == (labels[3], labels[199])
    recipe = {"system": system_message(schema, {}), "answer_schema": answer_schema(schema)}
    few = recipe | {"candidates": 5, "descriptions": {}, "numbered": numbered_recipe(schema, {}, 4)}
    (all_of,) = ChatPrompt(ModelVersion("m", "prompt", "m", schema, recipe), None).plan([0], ["text"])
    (some,) = ChatPrompt(ModelVersion("m", "prompt", "m", schema, few), None).plan([0], ["text"])
    assert some.tokens < all_of.tokens / 4


def test_an_example_is_shown_only_if_all_of_its_labels_are_named() -> None:
    near = LabelSchema((Target("intent", ("north",)), Target("tags", ("up",), multi=True)))
    shown = [("north", ["up"]), ("north", []), ("north", ["up", "down"]), ("west", ["up"])]
    examples = [{"text": "t", "labels": {"intent": intent, "tags": tags}} for intent, tags in shown]
    assert [has_labels_of(example, near) for example in examples] == [True, True, False, False]


@pytest.fixture
def school(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[School]:
    made = open_school(engine, mistral, redis_url, tmp_path)
    yield made
    made.close()


def _named(body: dict[str, Any]) -> list[str]:
    return list(body["response_format"]["json_schema"]["schema"]["properties"]["intent"]["enum"])


@pytest.mark.parametrize("options", [{}, {"shots": 1}, {"shots": 1, "shot_selection": "nearest"}])
def test_a_version_asks_with_the_nearest_labels_and_says_how_often_they_are_right(
    school: School, options: dict[str, Any]
) -> None:
    training = school.run(school.train(method="prompt", candidates=2, **options))
    found = training["details"]["candidates"]
    assert (training["state"], found["count"], found["found"]["intent"]) == ("succeeded", 2, 1.0)
    assert found["rows"] == {"intent": 40, "tags": 40}
    assert found["said"] in school.history(training["id"])
    assert ("prompt", found["said"]) in summary_of(training).facts
    parts = parts_of_page(school, training["id"])
    (table,) = [part for part in parts if isinstance(part, Grid) and "right labels among them" in part.headings]
    assert ("intent", 40, 1.0) in table.rows
    assert training["cost"]["amount"] > 0
    school.mistral.bodies.clear()
    texts = [made_up_row(n)["text"] for n in range(2000, 2012)]
    batch = school.run(school.classify(texts))
    assert school.labels(batch["id"]) == [label_of(text) for text in texts]
    chats = [body for body in school.mistral.bodies if "messages" in body]
    assert [len(_named(body)) for body in chats] == [2] * 12
    for body in chats:
        assert label_of(body["messages"][-1]["content"]) in _named(body)
        named = [line for line in body["messages"][0]["content"].split("\n") if line.removeprefix("- ") in LABELS]
        assert [line.removeprefix("- ") for line in named][: len(_named(body))] == _named(body)


def test_several_texts_share_the_labels_that_are_near_to_any_of_them(school: School) -> None:
    school.run(school.train(method="prompt", candidates=2, texts_per_prompt=4))
    texts = [made_up_row(n)["text"] for n in range(2000, 2012)]
    batch = school.run(school.classify(texts))
    assert school.labels(batch["id"]) == [label_of(text) for text in texts]
    assert batch["requests"] == 2 * 3


def test_labels_alone_may_be_near_where_there_is_no_row_to_train_on(school: School) -> None:
    school.dataset("bare", SCHEMA[:1], validation=[made_up_row(n) for n in range(8)])
    training = school.run(school.train(method="prompt", dataset="bare", candidates=3))
    assert (training["state"], training["details"]["candidates"]["rows"]) == ("succeeded", {"intent": 8})


def test_rows_that_have_no_vector_are_counted_and_named(school: School) -> None:
    rows = [made_up_row(number) for number in range(30)]
    for number in (3, 21, 22):
        rows[number]["text"] = f"too long a text {number}"
    school.dataset("bad", SCHEMA, train=rows[:20], validation=rows[20:])
    school.mistral.faults.append(refuse_texts_with("too long", 400))
    training = school.run(school.train(method="prompt", dataset="bad", candidates=2, shots=1, shot_selection="nearest"))
    assert (training["state"], training["details"]["candidates"]["rows"]["intent"]) == ("succeeded", 8)
    left_out = training["details"]["left_out"]
    assert left_out["rows"] == 3
    assert f"3 rows of the dataset took no part: {left_out['reason']}." in [
        part.text for part in parts_of_page(school, training["id"]) if isinstance(part, Note)
    ]
    assert left_out["reason"] in school.history(training["id"])


def test_the_vectors_wait_for_a_persons_word(school: School) -> None:
    waiting = school.run(school.train(method="prompt", candidates=2, yes=False))
    assert (waiting["state"], school.mistral.requests) == ("awaiting_approval", 0)
    assert waiting["estimate"]["texts"] > 40


@pytest.mark.parametrize("given", [1, 1_001])
def test_the_number_of_labels_in_a_prompt_is_bounded(school: School, given: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        school.train(method="prompt", candidates=given)
    assert refused.value.field == "candidates"


def test_a_text_alone_and_a_bisected_request_name_their_own_labels() -> None:
    labels = NearestLabels.of(TARGETS, NAMES, [], np.zeros((0, 2), np.float32))
    recipe = {"system": "s", "answer_schema": {}, "candidates": 2, "descriptions": {"west": "sunset"}, "shots": 0}
    pool = ExamplePool.of(TARGETS, [], np.zeros((0, 2), np.float32), labels)
    strategy = ChatPrompt(ModelVersion("m", "prompt", "m", TARGETS, recipe | {"embedding_model": "e"}), pool)
    body = strategy.call(Request([0], ["go"]), np.array([[-1.0, 0.1]], np.float32)).body
    assert "- north\n- west: sunset\n" in body["messages"][0]["content"]
    assert _named(dict(body)) == ["north", "west"]
