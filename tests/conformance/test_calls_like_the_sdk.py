"""The realtime adapter's calls, held to what the SDK sends and decodes, against one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator_thread import EmulatorThread
from mistralai.client import Mistral

from labelmill.contracts.errors import MalformedAnswer, RequestRefused
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.inference.chat_replies import read_chat_reply
from labelmill_worker.inference.models.prompt import (
    answer_schema,
    check_answer,
    check_reply,
    request_body,
    system_message,
)
from labelmill_worker.inference.vectors import check_vectors, embedding_call
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.ports.inference import Call, Endpoint, Reply

SCHEMA = LabelSchema((Target("intent", ("music", "weather")), Target("tags", ("loud", "wet", "cold"), multi=True)))
RECIPE = {"system": system_message(SCHEMA, {"wet": "rain and snow"}), "answer_schema": answer_schema(SCHEMA)}
TEXTS = ["play some jazz", "will it rain today?", "Wie kalt ist es in Köln?"]
SHOWN = [{"text": "it rains", "labels": {"intent": "weather", "tags": ["wet"]}}]

# The SDK's types admit much that is never answered here.
Client = Any


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmulatorThread(EmulatorConfig(port=0)) as running:
        yield running.url


@pytest.fixture
def sdk(url: str) -> Iterator[Client]:
    with Mistral(api_key="any", server_url=url) as client:
        yield client


def ask(url: str, call: Call) -> Reply:
    async def once() -> Reply:
        client = RealtimeInference(url, "any", timeout_s=20)
        try:
            return await client.send(call)
        finally:
            await client.close()

    return asyncio.run(once())


def test_vectors_and_their_tokens_are_those_of_the_sdk(url: str, sdk: Client) -> None:
    expected = sdk.embeddings.create(model="mistral-embed", inputs=TEXTS)
    reply = ask(url, embedding_call("mistral-embed", TEXTS))
    vectors = check_vectors(reply.document["data"], len(TEXTS), 1024)
    assert np.array_equal(vectors, np.array([entry.embedding for entry in expected.data], np.float32))
    assert reply.tokens == expected.usage.total_tokens > 0


def test_an_answer_of_a_chat_model_is_the_sdks(url: str, sdk: Client) -> None:
    body = request_body("ministral-8b-latest", RECIPE, SCHEMA, TEXTS[1], SHOWN)
    expected = sdk.chat.complete(**body)
    reply = ask(url, Call(Endpoint.CHAT_COMPLETIONS, body))
    content = read_chat_reply(reply).content
    assert content == expected.choices[0].message.content
    assert reply.tokens == expected.usage.total_tokens > 0
    intent, tags = check_answer(content, SCHEMA)
    assert intent.tolist() == [[0.0, 1.0]]
    assert tags.shape == (1, 3)


def test_the_request_of_a_chat_is_the_one_that_the_sdk_sends(sdk: Client) -> None:
    sent: list[bytes] = []
    hooks = sdk.sdk_configuration.client.event_hooks
    hooks["request"] = [lambda request: sent.append(request.content)]
    sdk.sdk_configuration.client.event_hooks = hooks
    body = request_body("ministral-8b-latest", RECIPE, SCHEMA, TEXTS[1], SHOWN)
    sdk.chat.complete(**body)
    import orjson  # noqa: PLC0415

    assert orjson.loads(sent[0])["response_format"] == body["response_format"]
    assert [(m["role"], m["content"]) for m in orjson.loads(sent[0])["messages"]] == [
        (m["role"], m["content"]) for m in body["messages"]
    ]


def test_an_answer_that_was_cut_short_counts_as_malformed(url: str) -> None:
    body = request_body("ministral-8b-latest", RECIPE, SCHEMA, TEXTS[1], SHOWN) | {"max_tokens": 2}
    message = read_chat_reply(ask(url, Call(Endpoint.CHAT_COMPLETIONS, body)))
    with pytest.raises(MalformedAnswer, match="cut short"):
        check_reply(message.content, message.finish_reason, SCHEMA)


@pytest.mark.parametrize(
    "texts", [["word " * 9_000], ["short text"] * 513, ["a text of some length, over and over again " * 30] * 100]
)
def test_embedding_requests_beyond_mistrals_limits_are_refused(url: str, texts: list[str]) -> None:
    with pytest.raises(RequestRefused):
        ask(url, embedding_call("mistral-embed", texts))
