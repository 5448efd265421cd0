"""A strategy needs no caller that waits: its calls are written to a file, and the replies are read from another one,
hours later, in any order. Answers are those of calls that are sent one by one."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from memory_mistral import MemoryMistral
from mistral_answers import KEY, LABELS, label_of, refuse_texts_with, vector_of

from labelmill.contracts.errors import LabelmillError, RequestRefused
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.head import Head
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.chat_classification import ChatClassification
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.inference.strategies.embedding import Embedding
from labelmill_worker.inference.strategies.embedding_head import EmbeddingHead
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.inference.strategies.strategy import Strategy
from labelmill_worker.mistral.replies import read_reply
from labelmill_worker.ports.inference import Call, Endpoint, Reply

SCHEMA = LabelSchema((Target("intent", tuple(sorted(LABELS))),))
TEXTS = [f"a text {'x' * (number % 4)} {number}" for number in range(25)]
ROWS = range(100, 125)


def _strategies() -> list[Strategy]:
    recipe = {"system": system_message(SCHEMA, {}), "answer_schema": answer_schema(SCHEMA)}
    model = ModelVersion("m@1", "factory", "m", SCHEMA, recipe)
    unknown = ModelVersion("raw@1", "factory", "raw", None, {})
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in TEXTS[:8]]
    pool = ExamplePool.of(SCHEMA, rows, np.array([vector_of(row["text"]) for row in rows], np.float32))
    near = ModelVersion("near@1", "prompt", "m", SCHEMA, {**recipe, "embedding_model": "e", "shots": 1})
    several = ModelVersion("m@1", "prompt", "m", SCHEMA, {**recipe, "numbered": numbered_recipe(SCHEMA, {}, 4)})
    head = Head(SCHEMA, [np.eye(1024, 4, dtype=np.float32)], [np.zeros(4, np.float32)])
    return [
        ListClassification(model, 10),
        ListClassification(unknown, 10),
        ChatClassification(model, 10),
        Embedding(ModelVersion("e@0", "vectors", "e", LabelSchema(()), {}), 10),
        EmbeddingHead(model, 10, head),
        ChatPrompt(model, None),
        ChatPrompt(near, pool),
        ChatPrompt(several, None),
    ]


@dataclass
class Files:
    """As a job that takes hours: a file of calls for each endpoint, and one of results in another order."""

    folder: Path
    mistral: MemoryMistral

    def carry_out(self, calls: dict[str, Call]) -> dict[str, Reply | LabelmillError]:
        """Replies by custom id."""
        lines: dict[Endpoint, list[str]] = defaultdict(list)
        for custom_id, call in calls.items():
            lines[call.endpoint].append(json.dumps({"custom_id": custom_id, "body": call.body}))
        replies: dict[str, Reply | LabelmillError] = {}
        for endpoint, of_endpoint in lines.items():
            path = self.folder / "calls.jsonl"
            path.write_text("\n".join(of_endpoint))
            for line in asyncio.run(self._work(endpoint, path.read_text().splitlines())):
                found = orjson.loads(line)
                try:
                    replies[found["custom_id"]] = read_reply(found["status"], orjson.dumps(found["body"]), None, [KEY])
                except LabelmillError as error:
                    replies[found["custom_id"]] = error
        return replies

    async def _work(self, endpoint: Endpoint, calls: list[str]) -> list[bytes]:
        done = []
        for line in calls:
            asked = json.loads(line)
            said = await self.mistral.answer(Call(endpoint, asked["body"]))
            assert isinstance(said.body, bytes)
            done.append({"custom_id": asked["custom_id"], "status": said.status, "body": orjson.loads(said.body)})
        random.Random(7).shuffle(done)
        return [orjson.dumps(result) for result in done]


def _by_file(files: Files, strategy: Strategy) -> list[Answer]:
    requests = {str(number): request for number, request in enumerate(strategy.plan(ROWS, TEXTS))}
    first = {key: call for key, request in requests.items() if (call := strategy.vector_call(request)) is not None}
    vectors = {key: strategy.read_vectors(requests[key], _good(reply)) for key, reply in files.carry_out(first).items()}
    calls = {key: strategy.call(request, vectors.get(key)) for key, request in requests.items()}
    replies = {key: _good(reply) for key, reply in files.carry_out(calls).items()}
    schema = strategy.schema or strategy.learn(requests["0"], replies["0"])
    return [strategy.read(request, replies[key], schema) for key, request in requests.items()]


def _good(reply: Reply | LabelmillError) -> Reply:
    assert isinstance(reply, Reply), reply
    return reply


async def _one_by_one(mistral: MemoryMistral, strategy: Strategy) -> list[Answer]:
    answers, schema = [], strategy.schema
    for request in strategy.plan(ROWS, TEXTS):
        vector, first = None, strategy.vector_call(request)
        if first is not None:
            vector = strategy.read_vectors(request, await mistral.inference.send(first))
        reply = await mistral.inference.send(strategy.call(request, vector))
        schema = schema or strategy.learn(request, reply)
        answers.append(strategy.read(request, reply, schema))
    return answers


def _facts(answers: Sequence[Answer]) -> list[Any]:
    return [
        (list(one.request.rows), one.tokens, [scores.tolist() for scores in one.scores], one.schema, list(one.vectors))
        for one in answers
    ]


@pytest.mark.parametrize("strategy", _strategies(), ids=lambda strategy: type(strategy).__name__)
def test_calls_by_file_bring_the_answers_of_calls_one_by_one(strategy: Strategy, tmp_path: Path) -> None:
    answers = _by_file(Files(tmp_path, MemoryMistral()), strategy)
    assert _facts(answers) == _facts(asyncio.run(_one_by_one(MemoryMistral(), strategy)))
    assert [row for answer in answers for row in answer.request.rows] == list(ROWS)


def test_a_line_that_is_refused_is_an_error_of_its_own(tmp_path: Path) -> None:
    mistral = MemoryMistral()
    mistral.faults = [refuse_texts_with("poison")]
    strategy = ListClassification(ModelVersion("m@1", "factory", "m", SCHEMA, {}), 1)
    calls = {text: strategy.call(Request([0], [text]), None) for text in ("good", "poison")}
    replies = Files(tmp_path, mistral).carry_out(calls)
    assert isinstance(replies["poison"], RequestRefused)
    assert strategy.read(Request([0], ["good"]), _good(replies["good"]), SCHEMA).schema is SCHEMA
