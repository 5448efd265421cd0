"""Fields of chat requests that make them cheaper, and servers that refuse them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest
from emulator_thread import EmulatorThread
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable, RequestRefused
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.chat_options import prompt_cache_key, reasons_by_default
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.mistral.refused_fields import FieldRefused, RefusedFields
from labelmill_worker.ports.inference import Call, Endpoint
from labelmill_worker.store.refused_fields import StoredRefusedFields

SCHEMA = LabelSchema((Target("intent", ("music", "weather")),))
RECIPE = {"system": system_message(SCHEMA, {}), "answer_schema": answer_schema(SCHEMA)}
VERSION = ModelVersion("intents@1", "prompt", "mistral-small-2603", SCHEMA, RECIPE)


def body_of(version: ModelVersion, text: str = "play") -> dict[str, Any]:
    return dict(ChatPrompt(version, None).call(Request([0], [text]), None).body)


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("mistral-small-latest", True),
        ("mistral-small-2603", True),
        ("mistral-small-2506", False),
        ("mistral-medium-3-5", True),
        ("mistral-medium-latest", True),
        ("mistral-medium-2508", False),
        ("mistral-large-4", True),
        ("mistral-large-2512", False),
        ("ministral-8b-2512", False),
        ("codestral-2508", False),
    ],
)
def test_a_model_that_reasons_by_default_is_told_not_to(model: str, reasons: bool) -> None:
    assert reasons_by_default(model) is reasons
    assert body_of(replace(VERSION, remote_model=model)).get("reasoning_effort") == ("none" if reasons else None)


def test_all_requests_of_a_version_share_one_cache_key_and_no_other_version_has_it() -> None:
    key = body_of(VERSION, "play")["prompt_cache_key"]
    assert key == body_of(VERSION, "will it rain")["prompt_cache_key"] == prompt_cache_key(VERSION)
    others = [
        replace(VERSION, name="intents@2"),
        replace(VERSION, remote_model="mistral-large-2512"),
        replace(VERSION, recipe={**RECIPE, "system": "another prompt"}),
    ]
    assert key not in [prompt_cache_key(other) for other in others]


CALL = Call(Endpoint.CHAT_COMPLETIONS, body_of(VERSION))
REFUSAL = RequestRefused("Mistral refused the request (status 422): body.reasoning_effort: Extra inputs", 422)


def test_a_field_that_a_model_refuses_is_left_out_from_then_on() -> None:
    fields = RefusedFields()
    assert isinstance(fields.refusal(CALL.model, fields.body_of(CALL), REFUSAL), FieldRefused)
    body = fields.body_of(CALL)
    assert "reasoning_effort" not in body
    assert "prompt_cache_key" in body
    assert fields.refusal(CALL.model, body, REFUSAL) is None, "it was not sent: the refusal is the request's own"
    other = Call(Endpoint.CHAT_COMPLETIONS, {**CALL.body, "model": "mistral-large-4"})
    assert "reasoning_effort" in fields.body_of(other)


@pytest.mark.parametrize("named", ["logprobs", "top_logprobs"])
def test_log_probabilities_that_a_model_refuses_are_left_out_with_their_number(named: str) -> None:
    version = replace(VERSION, recipe={**RECIPE, "logprobs": True})
    call = Call(Endpoint.CHAT_COMPLETIONS, body_of(version))
    fields = RefusedFields()
    error = RequestRefused(f"Mistral refused the request (status 422): body.{named}", 422)
    refusal = fields.refusal(call.model, call.body, error)
    assert refusal is not None
    assert "score 1 and 0" in refusal.message
    assert call.body.keys() - fields.body_of(call).keys() == {"logprobs", "top_logprobs"}


def test_what_one_worker_was_refused_no_other_sends_until_it_is_long_ago(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    RefusedFields(StoredRefusedFields(engine)).refusal(CALL.model, CALL.body, REFUSAL)
    other = RefusedFields(StoredRefusedFields(engine))
    assert not other.knows(CALL.model)
    assert "reasoning_effort" not in other.body_of(CALL)
    assert other.knows(CALL.model)
    cache_key = RequestRefused("Mistral refused the request (status 422): body.prompt_cache_key: Extra", 422)
    other.refusal(CALL.model, other.body_of(CALL), cache_key)
    both = {"reasoning_effort", "prompt_cache_key"}
    assert StoredRefusedFields(engine).read(CALL.model) == both
    in_a_year = time.time() + 365 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: in_a_year)
    assert RefusedFields(StoredRefusedFields(engine)).body_of(CALL) is CALL.body


def test_a_worker_without_a_database_learns_what_is_refused_by_itself() -> None:
    class Away:
        def read(self, model: str) -> frozenset[str]:
            raise DatabaseUnavailable("the database is away")

        def add(self, model: str, fields: frozenset[str]) -> None:
            raise DatabaseUnavailable("the database is away")

    fields = RefusedFields(Away())
    assert fields.body_of(CALL) is CALL.body
    assert fields.refusal(CALL.model, CALL.body, REFUSAL) is not None
    assert "reasoning_effort" not in fields.body_of(CALL)


def test_a_refusal_of_the_text_stays_its_own() -> None:
    fields = RefusedFields()
    error = RequestRefused("Mistral refused the request (status 422): body.messages: bad", 422)
    assert fields.refusal(CALL.model, CALL.body, error) is None
    assert fields.body_of(CALL) is CALL.body


def test_the_emulator_reports_cached_tokens_of_prompts_that_begin_alike() -> None:
    async def ask(url: str) -> list[int]:
        client = RealtimeInference(url, "any", timeout_s=20)
        cached = []
        long = replace(VERSION, recipe={**RECIPE, "system": RECIPE["system"] + " more words" * 100})
        for text in ("play some jazz", "will it rain"):
            body = {**body_of(long, text), "model": "mistral-small-latest"}
            reply = await client.send(Call(Endpoint.CHAT_COMPLETIONS, orjson.loads(orjson.dumps(body))))
            usage = reply.usage("m")
            assert usage is not None
            cached.append(usage.cached_tokens)
        await client.close()
        return cached

    with EmulatorThread() as emulator:
        first, second = asyncio.run(ask(emulator.url))
    assert first == 0
    assert second >= 64
    assert second % 64 == 0
