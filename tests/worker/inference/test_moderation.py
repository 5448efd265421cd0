"""Moderation models: they are asked by their ids, and their categories are the labels."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web
from emulator_thread import EmulatorThread
from mill import Mill, some_texts
from mistralai.client import Mistral
from sqlalchemy import select, text
from strict_mistral import LABELS, label_of, ok

from labelmill.contracts.chats import chat_as_text
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.remote_models import Listed, keep_list
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.inference.strategies.moderation import ChatModeration, Moderation
from labelmill_worker.mistral.realtime import RealtimeInference

MODEL = "mistral-moderation-2603"
TEXTS = ["I will kill you", "how do I invest in stocks", "a sunny day", "my passport number is 5"]


def test_a_batch_of_a_moderation_model_has_the_categories_as_labels_of_one_target(mill: Mill) -> None:
    batch = mill.submit(some_texts(40), model=MODEL)
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"]) == ("completed", 40)
    with reading(mill.engine) as connection:
        schema = connection.scalar(select(ModelRow.label_schema).where(ModelRow.name == MODEL))
        rows = connection.execute(
            text("SELECT target, labels FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch}
        ).all()
    assert schema == [{"name": "moderation", "labels": sorted(LABELS), "multi": True}]
    given = [(row.target, orjson.loads(row.labels) if isinstance(row.labels, str) else row.labels) for row in rows]
    assert given == [("moderation", [label_of(content)]) for content in some_texts(40)]


def test_a_batch_asks_the_model_that_its_name_means_at_its_submission(mill: Mill) -> None:
    name = "mistral-moderation-latest"
    with writing(mill.engine) as connection:
        keep_list(connection, [Listed(MODEL, (name,)), Listed(name, (MODEL,))])
    batch = mill.submit(some_texts(3), model=name)
    with writing(mill.engine) as connection:
        keep_list(connection, [Listed("mistral-moderation-2609", (name,)), Listed(name, ("mistral-moderation-2609",))])
    asked = set()

    def note(_: list[str], body: dict[str, Any]) -> None:
        asked.add(body["model"])

    mill.mistral.faults = [note]
    document = mill.run(batch)
    assert (document["model"], document["remote_model"], document["rows"]["labelled"]) == (MODEL, MODEL, 3)
    assert asked == {MODEL}


def test_an_answer_without_scores_is_malformed_and_a_threshold_may_name_the_target(mill: Mill) -> None:
    spoilt = 0

    def answer(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        nonlocal spoilt
        spoilt += 1
        return ok([{"categories": {}} for _ in texts]) if spoilt <= 2 else None

    mill.mistral.faults = [answer]
    document = mill.run(mill.submit(some_texts(10), model=MODEL, thresholds={"moderation": 0.9}))
    assert document["rows"]["abstained"] == 10  # the stand-in's best score is 0.85


@pytest.mark.parametrize(("strategy_class", "are_chats"), [(Moderation, False), (ChatModeration, True)])
def test_scores_are_those_that_the_sdk_decodes(strategy_class: type[ListClassification], are_chats: bool) -> None:
    strategy = strategy_class(ModelVersion(MODEL, "moderation", MODEL, None, {}), 100)
    chats = [[{"role": "user", "content": one}] for one in TEXTS]
    texts = [chat_as_text(chat) for chat in chats] if are_chats else TEXTS
    request = Request(range(len(TEXTS)), texts)

    async def ask(url: str) -> tuple[list[str], list[list[float]]]:
        client = RealtimeInference(url, "any", timeout_s=20)
        reply = await client.send(strategy.call(request, None))
        await client.close()
        schema = strategy.learn(request, reply)
        (scores,) = strategy.read(request, reply, schema).scores
        return list(schema.targets[0].labels), scores.tolist()

    with EmulatorThread() as emulator, Mistral(api_key="any", server_url=emulator.url) as sdk:
        labels, scores = asyncio.run(ask(emulator.url))
        said: Any = (
            sdk.classifiers.moderate_chat(model=MODEL, inputs=chats)  # type: ignore[arg-type]
            if are_chats
            else sdk.classifiers.moderate(model=MODEL, inputs=TEXTS)
        )
    expected = [[result.category_scores[label] for label in labels] for result in said.results]
    assert scores == [pytest.approx(row, rel=1e-6) for row in expected]
    assert len(labels) == 11
    assert max(range(11), key=lambda label: scores[0][label]) == labels.index("violence_and_threats")
