"""Several texts in one prompt: what is asked, how answers are matched by number, how requests are cut and bisected."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from mill import Mill, assert_all_labelled, assert_billed_once, some_texts
from sqlalchemy import insert
from strict_mistral import LABELS, completed, label_of, refuse_texts_with

from labelmill.contracts.errors import MalformedAnswer, UnusableContent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import writing
from labelmill.core.database.tables import ModelRow, ModelTargetRow
from labelmill_worker.inference import retry_policy
from labelmill_worker.inference.models.numbered_prompt import (
    MAX_OUTPUT_TOKENS,
    MAX_TEXT_TOKENS,
    check_numbered_reply,
    number_key,
    numbered_answer_schema,
    numbered_recipe,
    numbered_request_body,
    texts_per_prompt,
)
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt

SCHEMA = LabelSchema((Target("intent", ("play", "stop", "other")), Target("tags", ("loud", "soft"), multi=True)))
TOPICS = LabelSchema((Target("topic", tuple(sorted(LABELS))),))


def _recipe(schema: LabelSchema, texts: int) -> dict[str, Any]:
    recipe: dict[str, Any] = {"system": system_message(schema, {}), "answer_schema": answer_schema(schema)}
    return recipe | {"numbered": numbered_recipe(schema, {}, texts)}


def _strategy(texts: int, schema: LabelSchema = TOPICS) -> ChatPrompt:
    return ChatPrompt(ModelVersion("m@1", "prompt", "m", schema, _recipe(schema, texts)), None)


def _answers(*given: dict[str, Any]) -> str:
    return orjson.dumps({"answers": list(given)}).decode()


def test_texts_are_numbered_lines_of_json_whatever_they_hold() -> None:
    texts = ['3. stop\n{"number":2,"text":"no"}', "“go”"]
    body = numbered_request_body("m", numbered_recipe(SCHEMA, {}, 2), SCHEMA, texts, [])
    lines = body["messages"][-1]["content"].split("\n")
    assert [orjson.loads(line) for line in lines] == [{"number": n, "text": text} for n, text in enumerate(texts, 1)]
    assert body["response_format"]["json_schema"]["schema"] == numbered_answer_schema(SCHEMA)


def test_examples_are_shown_in_turns_of_the_same_form() -> None:
    shown = [{"text": f"go {number}", "labels": {"intent": "play", "tags": []}} for number in range(5)]
    body = numbered_request_body("m", numbered_recipe(SCHEMA, {}, 2), SCHEMA, ["a", "b"], shown)
    assert [message["role"] for message in body["messages"]] == ["system", *["user", "assistant"] * 3, "user"]
    assert orjson.loads(body["messages"][2]["content"]) == {
        "answers": [{"number": number, "intent": "play", "tags": []} for number in (1, 2)]
    }


def test_the_number_has_a_name_that_no_target_has() -> None:
    schema = LabelSchema((Target("Number", ("a", "b")), Target("number_", ("a", "b"))))
    assert number_key(schema) == "number__"
    said = _answers({"number__": 2, "Number": "a", "number_": "b"}, {"number__": 1, "Number": "b", "number_": "a"})
    first, second = check_numbered_reply(said, "stop", schema, 2)
    assert (first.tolist(), second.tolist()) == ([[0, 1], [1, 0]], [[1, 0], [0, 1]])


def test_answers_are_matched_by_number_in_whatever_order_they_come() -> None:
    given = [{"number": n, "intent": ("play", "stop", "other")[n % 3], "tags": ["soft"] * (n % 2)} for n in range(1, 9)]
    random.Random(4).shuffle(given)
    intent, tags = check_numbered_reply(f"```json\n{_answers(*given)}\n```", "stop", SCHEMA, 8)
    assert intent.argmax(axis=1).tolist() == [n % 3 for n in range(1, 9)]
    assert tags[:, 1].tolist() == [n % 2 for n in range(1, 9)]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([1], "1 answers to 2 texts"),
        ([1, 2, 3], "3 answers to 2 texts"),
        ([], "0 answers to 2 texts"),
        ([1, 1], "text 1 of 2 twice"),
        ([0, 1], "another number"),
        ([1, 3], "another number"),
        ([1, True], "another number"),
        ([1, "2"], "another number"),
        ([1, None], "another number"),
    ],
)
def test_a_wrong_count_and_a_wrong_number_are_no_answer(numbers: list[Any], words: str) -> None:
    given = [{"number": number, "intent": "play", "tags": []} for number in numbers]
    with pytest.raises(UnusableContent, match=words):
        check_numbered_reply(_answers(*given), "stop", SCHEMA, 2)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"answers":{}}',
        '{"answers":null}',
        '{"answers":[1,2]}',
        '{"answers":[{"number":1,"intent":"play","tags":[]},{"number":2,"intent":"halt","tags":[]}]}',
        '{"answers":[{"number":1,"intent":"play","tags":[]},{"number":2,"intent":"play"}]}',
        '{"answers":[{"intent":"play","tags":[]},{"intent":"play","tags":[]}]}',
        '{"intent":"play","tags":[]}',
    ],
)
def test_an_answer_off_the_schema_is_none(content: str) -> None:
    with pytest.raises(UnusableContent):
        check_numbered_reply(content, "stop", SCHEMA, 2)


def test_a_model_that_failed_may_answer_next_time() -> None:
    with pytest.raises(MalformedAnswer) as raised:
        check_numbered_reply("", "error", SCHEMA, 2)
    assert not isinstance(raised.value, UnusableContent)
    with pytest.raises(UnusableContent, match="cut short"):
        check_numbered_reply('{"answers":[', "length", SCHEMA, 2)


def test_a_text_alone_is_asked_as_without_numbers() -> None:
    plain = ChatPrompt(ModelVersion("m@1", "prompt", "m", TOPICS, _recipe(TOPICS, 4) | {"numbered": None}), None)
    call = _strategy(4).call(Request([7], ["alone"]), None)
    assert orjson.dumps(call.body) == orjson.dumps(plain.call(Request([7], ["alone"]), None).body)


def test_requests_are_cut_by_number_and_by_tokens_and_the_estimate_counts_the_prompt_once() -> None:
    strategy = _strategy(8)
    texts = ["short"] * 20 + ["long " * 12_000, "longer " * 12_000] + ["short"] * 3
    requests = list(strategy.plan(range(len(texts)), texts))
    assert [len(request) for request in requests] == [8, 8, 4, 1, 1, 3]
    assert [row for request in requests for row in request.rows] == list(range(len(texts)))
    assert all(len(request) == 1 or sum(map(len, request.texts)) // 3 <= MAX_TEXT_TOKENS for request in requests)
    whole, (half, _) = requests[0], requests[0].halves()
    assert whole.shared_tokens == half.shared_tokens > 100
    assert whole.tokens < 2 * half.tokens
    plain = ChatPrompt(ModelVersion("m@1", "prompt", "m", TOPICS, _recipe(TOPICS, 8) | {"numbered": None}), None)
    assert whole.tokens < sum(request.tokens for request in plain.plan(range(8), texts[:8])) / 2


def test_the_longest_answer_to_a_prompt_is_bounded() -> None:
    many = LabelSchema((Target("tags", tuple(f"a rather long label {number}" for number in range(300)), multi=True),))
    recipe = numbered_recipe(many, {}, 64)
    assert texts_per_prompt(recipe, many) < 10
    assert texts_per_prompt(numbered_recipe(TOPICS, {}, 64), TOPICS) == 64
    for schema, found in ((many, recipe), (TOPICS, numbered_recipe(TOPICS, {}, 64))):
        body = numbered_request_body("m", found, schema, ["text"] * texts_per_prompt(found, schema), [])
        assert 0 < body["max_tokens"] <= MAX_OUTPUT_TOKENS


@pytest.fixture
def numbered(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> Mill:
    monkeypatch.setattr(retry_policy, "MALFORMED_BASE_S", 0.005)
    monkeypatch.setattr(retry_policy, "LAST_UNUSABLE_PAUSE_S", 0.005)
    with writing(mill.engine) as connection:
        values = {"name": "numbered", "version": 1, "promoted": True, "method": "prompt", "remote_model": "m"}
        statement = insert(ModelRow).values(label_schema=TOPICS.to_json(), recipe=_recipe(TOPICS, 8), **values)
        key = connection.execute(statement.returning(ModelRow.no)).scalar_one()
        connection.execute(insert(ModelTargetRow).values(model_no=key, target=0, name="topic"))
    return mill


def _with_answers(change: Callable[[list[dict[str, Any]]], object]) -> Callable[..., web.Response | None]:
    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        if len(texts) == 1:
            return None
        given = [{"number": number, "topic": label_of(text)} for number, text in enumerate(texts, 1)]
        change(given)
        return completed(body, _answers(*given))

    return reply


def test_a_batch_asks_for_several_texts_at_once(numbered: Mill) -> None:
    texts = some_texts(42)
    batch = numbered.submit(texts, model="numbered")
    document = numbered.run(batch)
    assert_all_labelled(numbered, batch, texts)
    assert_billed_once(numbered, texts)
    assert document["requests"] == numbered.mistral.requests == 6


def test_answers_in_another_order_reach_their_texts(numbered: Mill) -> None:
    numbered.mistral.faults = [_with_answers(list.reverse)]
    texts = some_texts(16)
    batch = numbered.submit(texts, model="numbered")
    assert numbered.run(batch)["requests"] == 2
    assert_all_labelled(numbered, batch, texts)


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.pop(),
        lambda given: given.append(dict(given[0])),
        lambda given: given[1].update(number=1),
        lambda given: given[0].update(number=99),
    ],
    ids=["short", "long", "repeated", "unknown"],
)
def test_a_model_that_cannot_number_answers_is_asked_for_single_texts_after_one_try_each(
    numbered: Mill, change: Callable[[list[dict[str, Any]]], object]
) -> None:
    numbered.mistral.faults = [_with_answers(change)]
    texts = some_texts(8)
    batch = numbered.submit(texts, model="numbered")
    document = numbered.run(batch)
    assert_all_labelled(numbered, batch, texts)
    assert document["requests"] == numbered.mistral.requests == 8 + 4 + 2 + 1


def test_a_text_that_spoils_the_answers_of_others_costs_only_itself(numbered: Mill) -> None:
    def nonsense(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        return completed(body, "I cannot help with that") if any("curse" in text for text in texts) else None

    numbered.mistral.faults = [nonsense]
    texts = [*some_texts(15), "a curse"]
    batch = numbered.submit(texts, model="numbered")
    document = numbered.run(batch)
    assert numbered.errors(batch) == {15: "malformed_answer"}
    assert document["rows"]["labelled"] == 15
    # 8, then 4 and 4, 2 and 2, 1 and 1 of them, and the text itself three times; and the other eight
    assert document["requests"] == 1 + 2 + 2 + 1 + retry_policy.MALFORMED_TRIES + 1


def test_a_refused_text_is_found_among_those_of_its_prompt(numbered: Mill) -> None:
    numbered.mistral.faults = [refuse_texts_with("poison")]
    texts = [*some_texts(12), "poison"]
    batch = numbered.submit(texts, model="numbered")
    document = numbered.run(batch)
    assert (numbered.errors(batch), document["rows"]["labelled"]) == ({12: "request_refused"}, 12)
