"""Chats with the emulator as a prompted model asks them: several texts at once, and what can go wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import pytest
from emulator_thread import EmulatorThread

from labelmill.contracts.errors import UnusableContent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.mistral.refused_fields import FieldRefused

SCHEMA = LabelSchema((Target("intent", ("play music", "weather forecast")),))
TEXTS = ["play me some music", "what is the weather forecast", "music, play it"]
RIGHT = [0, 1, 0]
EXAMPLES = [
    {"text": "play music", "labels": {"intent": "play music"}},
    {"text": "is it raining", "labels": {"intent": "weather forecast"}},
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorConfig(port=0)) as running:
        yield running


def ask(
    emulator: EmulatorThread, *faults: str, model: str = "ministral-8b-latest", logprobs: bool = False, texts: int = 3
) -> Answer:
    armed = httpx2.put(f"{emulator.url}/_control/faults", json={"faults": list(faults), "seed": 1})
    assert armed.status_code == 200, armed.text
    recipe = {
        "system": system_message(SCHEMA, {}),
        "answer_schema": answer_schema(SCHEMA),
        "numbered": numbered_recipe(SCHEMA, {}, 4),
        "examples": EXAMPLES,
        "logprobs": logprobs,
    }
    strategy = ChatPrompt(ModelVersion("m@1", "prompt", model, SCHEMA, recipe), None)
    request = Request(range(texts), TEXTS[:texts])

    async def send() -> Answer:
        client = RealtimeInference(emulator.url, "key", timeout_s=20.0)
        try:
            return strategy.read(request, await client.send(strategy.call(request, None)), SCHEMA)
        finally:
            await client.close()

    return asyncio.run(send())


@pytest.mark.parametrize("fault", [(), ("answers-swapped",)])
def test_every_text_of_a_prompt_is_answered_whatever_the_order(
    emulator: EmulatorThread, fault: tuple[str, ...]
) -> None:
    before = emulator.stats()["texts"]
    answer = ask(emulator, *fault)
    assert answer.scores[0].argmax(axis=1).tolist() == RIGHT
    assert emulator.stats()["texts"] - before == len(TEXTS)
    assert answer.tokens > 0


@pytest.mark.parametrize("texts", [1, 3])
def test_log_probabilities_make_scores_of_those_labels_that_were_chosen(emulator: EmulatorThread, texts: int) -> None:
    (scores,) = ask(emulator, logprobs=True, texts=texts).scores
    assert scores.argmax(axis=1).tolist() == RIGHT[:texts]
    assert scores.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (scores.min(axis=1) > 0).all()  # of labels that were merely chosen it would be 0


def test_a_model_without_log_probabilities_refuses_the_fields(emulator: EmulatorThread) -> None:
    with pytest.raises(FieldRefused, match="refuses logprobs and top_logprobs"):
        ask(emulator, model="mistral-small-latest", logprobs=True)
    assert ask(emulator, model="mistral-small-latest").scores[0].argmax(axis=1).tolist() == RIGHT


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("answers-too-few", "2 answers to 3 texts"),
        ("answers-too-many", "4 answers to 3 texts"),
        ("answers-repeated", "twice"),
    ],
)
def test_a_wrong_count_or_number_can_be_asked_for(emulator: EmulatorThread, fault: str, words: str) -> None:
    with pytest.raises(UnusableContent, match=words):
        ask(emulator, fault)
