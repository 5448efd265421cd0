"""Answers of `/v1/chat/completions`, for answers that follow a JSON schema."""

import asyncio
import time
import uuid
from concurrent.futures import Executor
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labelmill_ops.emulator.answering import Answered, Answerer
from labelmill_ops.emulator.chat import UnsupportedSchemaError, answer, asked_texts, text_of
from labelmill_ops.emulator.prefix_cache import PrefixCache
from labelmill_ops.emulator.replies import invalid_model, refusal, unprocessable
from labelmill_ops.emulator.routes_models import BASE_MODELS
from labelmill_ops.emulator.token_logprobs import Part, content_of, logprobs_of
from labelmill_ops.emulator.training_data import estimated_tokens

#: Models that refuse to tell the log-probabilities of tokens.
WITHOUT_LOGPROBS = frozenset({"mistral-small-latest", "mistral-small-2603"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")  # as Mistral does with fields it does not know


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class _JsonSchema(_Part):
    name: str = Field(min_length=1)
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool = False


class _ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: _JsonSchema | None = None


class _Completion(_Part):
    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=1.5)
    top_p: float | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    stream: bool = False
    stop: str | list[str] | None = None
    random_seed: int | None = None
    n: int | None = None
    response_format: _ResponseFormat | None = None
    safe_prompt: bool = False
    prompt_cache_key: str | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


def chat_answerers(executor: Executor) -> dict[str, Answerer]:
    """Return what answers chat completions."""
    cache = PrefixCache()

    async def complete(body: dict[str, Any]) -> Answered:
        try:
            asked = _Completion.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            raise unprocessable(".".join(map(str, first["loc"])), first["msg"], first["type"]) from error
        if asked.model in WITHOUT_LOGPROBS and not {"logprobs", "top_logprobs"}.isdisjoint(asked.model_fields_set):
            raise unprocessable("logprobs", "Extra inputs are not permitted", "extra_forbidden")
        if asked.reasoning_effort is not None and not BASE_MODELS.get(asked.model, {}).get("reasoning"):
            raise unprocessable("reasoning_effort", "Extra inputs are not permitted", "extra_forbidden")
        if not BASE_MODELS.get(asked.model, {}).get("completion_chat"):
            raise invalid_model(asked.model, 400)
        if asked.messages[-1].role not in ("user", "tool"):
            raise refusal(400, "Expected last role User or Tool for serving")
        if asked.stream or asked.response_format is None or asked.response_format.json_schema is None:
            raise refusal(400, "The emulator answers with a JSON schema only, and does not stream")
        messages = [message.model_dump() for message in asked.messages]
        schema = asked.response_format.json_schema.schema_
        try:
            parts = await asyncio.get_running_loop().run_in_executor(executor, answer, messages, schema)
        except UnsupportedSchemaError as error:
            raise refusal(400, str(error)) from error
        reply = _reply(asked, messages, parts)
        prompt = "\n".join(map(text_of, messages))
        usage = reply["usage"]
        cached = min(cache.cached_tokens(asked.model, asked.prompt_cache_key, prompt), usage["prompt_tokens"])
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return Answered(orjson.dumps(reply), asked_texts(messages, schema), reply["usage"]["total_tokens"])

    return {"/v1/chat/completions": complete}


def _reply(asked: _Completion, messages: list[dict[str, Any]], parts: list[Part]) -> dict[str, Any]:
    prompt = sum(estimated_tokens(text_of(message)) + 4 for message in messages)
    content, finish = content_of(parts), "stop"
    written = estimated_tokens(content)
    if asked.max_tokens is not None and written > asked.max_tokens:
        content, written, finish = content[: asked.max_tokens * 4], asked.max_tokens, "length"
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": content, "tool_calls": None, "prefix": False},
        "finish_reason": finish,
    }
    if asked.logprobs:
        choice["logprobs"] = logprobs_of(parts, asked.top_logprobs or 0)
    return {
        "id": uuid.uuid4().hex,
        "object": "chat.completion",
        "model": asked.model,
        "created": int(time.time()),
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }
