"""Batches of a prompted model whose answers are off the schema: what is asked, what it costs, what a row is told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from mill import Mill
from sqlalchemy import insert
from strict_mistral import LABELS, completed, embedded, label_of

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import writing
from labelmill.core.database.tables import ModelRow, ModelTargetRow
from labelmill_worker.inference import chunk_run, retry_policy
from labelmill_worker.inference.models.prompt import answer_schema, system_message

SCHEMA = LabelSchema((Target("topic", tuple(sorted(LABELS))),))
TOKENS = 55  #: That the stand-in reports for each answer of a chat model.


@pytest.fixture(autouse=True)
def _prompted_model(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "MALFORMED_BASE_S", 0.005)
    monkeypatch.setattr(retry_policy, "LAST_UNUSABLE_PAUSE_S", 0.01)
    recipe = {"system": system_message(SCHEMA, {}), "answer_schema": answer_schema(SCHEMA)}
    with writing(mill.engine) as connection:
        key = connection.execute(
            insert(ModelRow)
            .values(
                name="prompted",
                version=1,
                promoted=True,
                method="prompt",
                remote_model="ministral-8b-latest",
                label_schema=SCHEMA.to_json(),
                recipe=recipe,
            )
            .returning(ModelRow.no)
        ).scalar_one()
        connection.execute(insert(ModelTargetRow).values(model_no=key, target=0, name="topic"))


def _says(say: Callable[[str], tuple[str | None, str]]) -> Callable[[list[str], dict[str, Any]], web.Response]:
    def reply(texts: list[str], body: dict[str, Any]) -> web.Response:
        content, finish = say(label_of(texts[0]))
        return completed(body, content if content is not None else "", finish)

    return reply


def _as_json(label: str) -> str:
    return orjson.dumps({"topic": label}).decode()


@pytest.mark.parametrize(
    "dress",
    [
        lambda label: f"```json\n{_as_json(label)}\n```",
        lambda label: _as_json(label.upper()),
        lambda label: _as_json(f" {label}\n"),
        lambda label: f"\n\n{_as_json(label)} ",
    ],
    ids=["fence", "case", "space", "around"],
)
def test_an_answer_in_other_dress_is_asked_once(mill: Mill, dress: Callable[[str], str]) -> None:
    mill.mistral.faults = [_says(lambda label: (dress(label), "stop"))]
    texts = [f"text {number:02d} {'x' * (number % 4)}" for number in range(40)]
    batch = mill.submit(texts, model="prompted")
    document = mill.run(batch)
    assert mill.predictions(batch) == {row: label_of(content) for row, content in enumerate(texts)}
    assert (document["requests"], document["tokens"], mill.mistral.requests) == (40, 40 * TOKENS, 40)


@pytest.mark.parametrize(
    ("content", "finish"),
    [
        ("I am sorry, I cannot help with that.", "stop"),
        (None, "content_filter"),
        (None, "stop"),
        ('{"topic":"refunds"}', "stop"),
        ('{"topic":["alpha"]}', "stop"),
        ('{"topic":"alpha","why":"x"}', "stop"),
        ('{"topic":"al', "length"),
    ],
)
def test_a_text_that_gets_no_answer_is_asked_three_times_and_every_token_counts(
    mill: Mill, content: str | None, finish: str
) -> None:
    answer = _says(lambda label: (content, finish))
    mill.mistral.faults = [lambda texts, body: answer(texts, body) if texts == ["curse"] else None]
    batch = mill.submit(["good", "curse", "better"], model="prompted")
    document = mill.run(batch)
    assert (document["state"], mill.errors(batch)) == ("completed", {1: "malformed_answer"})
    assert sorted(mill.predictions(batch)) == [0, 2]
    assert (document["requests"], document["tokens"], mill.mistral.requests) == (5, 5 * TOKENS, 5)


def test_a_text_that_is_spoilt_for_a_while_keeps_its_row_though_others_are_answered(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_policy, "LAST_UNUSABLE_PAUSE_S", 1.0)
    cut = _says(lambda label: ('{"topic":"al', "length"))
    spoilt_until = time.monotonic() + 60.0

    def spoil(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        nonlocal spoilt_until
        if texts != ["cut"]:
            return None
        spoilt_until = min(spoilt_until, time.monotonic() + 0.3)  # from the first time it is asked
        return cut(texts, body) if time.monotonic() < spoilt_until else None

    mill.mistral.faults = [spoil]
    texts = ["cut", *(f"text {number}" for number in range(30))]
    document = mill.run(mill.submit(texts, model="prompted"))
    assert (document["rows"]["labelled"], document["rows"]["failed"]) == (31, 0)


def test_a_bad_text_is_not_asked_for_ever_where_no_slice_has_room_for_all_tries(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_run, "SLICE_S", 0.3)
    monkeypatch.setattr(retry_policy, "LAST_UNUSABLE_PAUSE_S", 2.0)
    monkeypatch.setattr(retry_policy, "MAX_FRUITLESS_CLAIMS", 4)
    monkeypatch.setattr(retry_policy, "MAX_CLAIM_PAUSE_S", 0.01)
    mill.mistral.faults = [_says(lambda label: (None, "content_filter"))]
    document = mill.run(mill.submit(["curse"], model="prompted"))
    assert (document["state"], document["rows"]["failed"]) == ("completed", 1)
    assert mill.mistral.requests <= 4 * 2 + 2


def test_texts_that_a_model_answers_badly_all_at_once_are_asked_again_later(mill: Mill) -> None:
    texts = [f"text {number}" for number in range(8)]
    asked: Counter[str] = Counter()
    nonsense = _says(lambda label: ('{"topic":"refunds"}', "stop"))

    def spell(of: list[str], body: dict[str, Any]) -> web.Response | None:
        asked["times"] += 1
        return nonsense(of, body) if asked["times"] <= 2 * 3 * len(texts) else None

    mill.mistral.faults = [spell]
    batch = mill.submit(texts, model="prompted")
    document = mill.run(batch)
    assert (document["rows"]["labelled"], document["rows"]["failed"]) == (8, 0)
    assert document["requests"] == mill.mistral.requests == (2 * 3 + 1) * len(texts)


def test_texts_that_a_model_never_answers_fail_after_three_claims(mill: Mill) -> None:
    nonsense = _says(lambda label: ('{"topic":"refunds"}', "stop"))
    mill.mistral.faults = [nonsense]
    batch = mill.submit([f"text {number}" for number in range(8)], model="prompted")
    document = mill.run(batch)
    assert document["rows"]["failed"] == 8
    assert mill.mistral.requests <= 3 * 3 * 8


def test_a_text_alone_that_gets_no_answer_is_asked_three_times(mill: Mill) -> None:
    mill.mistral.faults = [_says(lambda label: (None, "content_filter"))]
    batch = mill.submit(["curse"], model="prompted")
    document = mill.run(batch)
    assert (document["rows"]["failed"], mill.mistral.requests) == (1, 3)


def test_only_the_text_of_an_answer_in_chunks_counts(mill: Mill) -> None:
    def reasoned(texts: list[str], body: dict[str, Any]) -> web.Response:
        chunks = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "text", "text": _as_json(label_of(texts[0]))},
        ]
        reply = orjson.loads(completed(body).body)  # type: ignore[arg-type] # bytes, as it was made
        reply["choices"][0]["message"]["content"] = chunks
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    mill.mistral.faults = [reasoned]
    batch = mill.submit(["good"], model="prompted")
    assert mill.run(batch)["rows"]["labelled"] == 1


@pytest.mark.parametrize("usage", [{"total_tokens": -5}, {"total_tokens": 2**63}, {"total_tokens": True}, {}, None])
def test_token_counts_that_cannot_be_are_not_believed(mill: Mill, usage: dict[str, Any] | None) -> None:
    def reply(texts: list[str], body: dict[str, Any]) -> web.Response:
        document = orjson.loads(completed(body).body)  # type: ignore[arg-type] # bytes, as it was made
        return web.Response(body=orjson.dumps(document | {"usage": usage}), content_type="application/json")

    mill.mistral.faults = [reply]
    document = mill.run(mill.submit(["good"], model="prompted"))
    assert (document["rows"]["labelled"], document["tokens"]) == (1, 0)


def test_tokens_of_malformed_vectors_and_classifications_count(mill: Mill) -> None:
    mill.run(mill.submit(["a first text, so that the labels are known"]))
    asked: Counter[str] = Counter()

    def spoilt_at_first(texts: list[str], body: dict[str, Any]) -> web.Response:
        asked["times"] += 1
        document: dict[str, Any] = orjson.loads(embedded(texts).body)  # type: ignore[arg-type] # bytes, as it was made
        scores = dict.fromkeys(LABELS, 0.25)
        document["results"] = [{"intent": {"scores": scores}} for _ in texts] if asked["times"] > 2 else []
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    mill.mistral.faults = [spoilt_at_first]
    document = mill.run(mill.submit(["one", "two"]))
    assert (document["rows"]["labelled"], document["requests"], document["tokens"]) == (2, 3, 3 * 14)
