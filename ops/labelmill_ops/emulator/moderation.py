"""Answers of `/v1/moderations` and `/v1/chat/moderations`. Some words decide: Mistral's model is another."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from labelmill_ops.emulator.answering import Answered, Answerer
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.replies import invalid_model, unprocessable
from labelmill_ops.emulator.routes_inference import checked_texts, model_name
from labelmill_ops.emulator.routes_models import BASE_MODELS
from labelmill_ops.emulator.training_data import chat_text, estimated_tokens

#: category → words that speak for it
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "sexual": ("sex", "nude", "porn"),
    "hate_and_discrimination": ("hate", "inferior", "racist"),
    "violence_and_threats": ("kill", "hurt", "shoot", "beat"),
    "dangerous": ("bomb", "explosive", "poison"),
    "criminal": ("steal", "fraud", "smuggle"),
    "selfharm": ("suicide", "cut myself", "self-harm"),
    "health": ("diagnos", "dose", "medicine", "symptom"),
    "financial": ("invest", "stocks", "loan"),
    "law": ("lawyer", "sue", "contract"),
    "pii": ("passport", "social security", "credit card"),
    "jailbreaking": ("ignore all", "jailbreak", "no rules"),
}
_HOLDS = 0.5


def moderation_answerers(config: EmulatorConfig) -> dict[str, Answerer]:
    """Return what answers each path."""

    async def moderate_texts(body: dict[str, Any]) -> Answered:
        texts = body.get("input")
        return _moderate(body, checked_texts([texts] if isinstance(texts, str) else texts, config))

    async def moderate_chats(body: dict[str, Any]) -> Answered:
        chats = body.get("input")
        if isinstance(chats, list) and chats and isinstance(chats[0], dict):
            chats = [chats]  # one chat
        try:
            texts = [chat_text(chat) for chat in chats or ()]
        except (ValueError, TypeError) as error:
            raise unprocessable("input", str(error)) from error
        return _moderate(body, checked_texts(texts, config))

    return {"/v1/moderations": moderate_texts, "/v1/chat/moderations": moderate_chats}


def _moderate(body: dict[str, Any], texts: list[str]) -> Answered:
    name = model_name(body)
    if not BASE_MODELS.get(name, {}).get("moderation"):
        raise invalid_model(name)
    results = [_moderated(text) for text in texts]
    tokens = sum(map(estimated_tokens, texts))
    usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
    reply = {"id": uuid.uuid4().hex, "model": name, "results": results, "usage": usage}
    return Answered(orjson.dumps(reply), texts, tokens)


def _moderated(text: str) -> dict[str, Any]:
    lower = text.lower()
    scores = {}
    for category, words in CATEGORIES.items():
        found = sum(word in lower for word in words)
        scores[category] = round(1 - 0.3**found, 4) if found else 0.01
    return {"categories": {name: score >= _HOLDS for name, score in scores.items()}, "category_scores": scores}
