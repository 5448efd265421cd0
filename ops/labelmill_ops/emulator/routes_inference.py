"""Answers of `/v1/classifications`, `/v1/chat/classifications` and `/v1/embeddings`."""

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

import orjson

from labelmill_ops.emulator.answering import Answered, Answerer
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.embedding import embed
from labelmill_ops.emulator.replies import PROMPT_TOO_LONG, invalid_model, refusal, unprocessable
from labelmill_ops.emulator.store import Store
from labelmill_ops.emulator.training_data import chat_text, estimated_tokens

EMBEDDING_MODELS = ("mistral-embed", "mistral-embed-2312")
MAX_EMBEDDED_TEXTS, MAX_EMBEDDED_TOKENS, MAX_EMBEDDED_TEXT_TOKENS = 512, 16_384, 8_192  #: of one request, of one text
Answer = TypeVar("Answer")


def inference_answerers(config: EmulatorConfig, executor: Executor, store: Store) -> dict[str, Answerer]:
    """Return what answers each path; the executor does the computing, so the loop stays free for HTTP."""

    async def compute(work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    async def classify_texts(body: dict[str, Any]) -> Answered:
        return await _classify(body, _texts(body, config))

    async def classify_chats(body: dict[str, Any]) -> Answered:
        chats = body.get("input")
        chats = chats if isinstance(chats, list) else [chats]
        try:
            texts = [chat_text(chat.get("messages") if isinstance(chat, dict) else None) for chat in chats]
        except ValueError as error:
            raise unprocessable("input", str(error)) from error
        return await _classify(body, checked_texts(texts, config))

    async def _classify(body: dict[str, Any], texts: list[str]) -> Answered:
        name = model_name(body)
        try:
            classifier = store.classifier_of(name)
        except KeyError as error:
            raise invalid_model(name) from error
        request_id = uuid.uuid4().hex
        reply = await compute(
            lambda: orjson.dumps({"id": request_id, "model": name, "results": classifier.classify(texts)})
        )
        return Answered(reply, texts, sum(map(estimated_tokens, texts)))

    async def embeddings(body: dict[str, Any]) -> Answered:
        name = model_name(body)
        if name not in EMBEDDING_MODELS:
            raise invalid_model(name)
        texts = _texts(body, config)
        counts = list(map(estimated_tokens, texts))
        tokens = sum(counts)
        if len(texts) > MAX_EMBEDDED_TEXTS:
            raise refusal(400, "Too many inputs in request, split into more batches.", ("invalid_request", "3210"))
        if max(counts) > MAX_EMBEDDED_TEXT_TOKENS:
            message = f"Input id {counts.index(max(counts))} has {max(counts)} tokens, exceeding max 8192 tokens."
            raise refusal(400, message, PROMPT_TOO_LONG)
        if tokens > MAX_EMBEDDED_TOKENS:
            raise refusal(400, f"Too many tokens in batch. Max is {MAX_EMBEDDED_TOKENS} got {tokens}")

        def reply() -> bytes:
            data = [
                {"object": "embedding", "embedding": vector, "index": index}
                for index, vector in enumerate(embed(texts).tolist())
            ]
            usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
            return orjson.dumps({"id": uuid.uuid4().hex, "object": "list", "model": name, "usage": usage, "data": data})

        return Answered(await compute(reply), texts, tokens)

    return {
        "/v1/classifications": classify_texts,
        "/v1/chat/classifications": classify_chats,
        "/v1/embeddings": embeddings,
    }


def model_name(body: dict[str, Any]) -> str:
    """The model that a request names, or a refusal."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise unprocessable("model", "Field required", "missing")
    return name


def _texts(body: dict[str, Any], config: EmulatorConfig) -> list[str]:
    texts = body.get("input")
    return checked_texts([texts] if isinstance(texts, str) else texts, config)


def checked_texts(texts: Any, config: EmulatorConfig) -> list[str]:
    """The texts, or a refusal of what Mistral refuses."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise unprocessable("input", "Input should be a string or a list of strings", "string_type")
    if not texts:
        raise unprocessable("input", "List should have at least 1 item", "too_short")
    if len(texts) > config.max_inputs:
        raise unprocessable("input", f"List should have at most {config.max_inputs} items", "too_long")
    for number, text in enumerate(texts):
        if not text.strip():
            raise unprocessable("input", f"Input {number} is empty", "string_too_short")
        if len(text) > config.max_input_chars:
            message = f"Input {number} has {len(text)} characters, more than {config.max_input_chars}"
            raise refusal(400, message, PROMPT_TOO_LONG)
    return texts
