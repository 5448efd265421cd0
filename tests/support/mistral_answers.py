"""What the stand-in for Mistral says: an answer is a function of the text, so that every test knows the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

LABELS = ("alpha", "beta", "gamma", "delta")
KEY = "a-key-that-must-not-leak"

Reply = Callable[[list[str], dict[str, Any]], web.Response | None]


def label_of(text: str) -> str:
    """The label that the stand-in gives a text."""
    return LABELS[len(text) % len(LABELS)]


def result_of(text: str) -> dict[str, Any]:
    scores = dict.fromkeys(LABELS, 0.05)
    scores[label_of(text)] = 0.85
    return {"intent": {"scores": scores}}


def moderated(text: str) -> dict[str, Any]:
    """The text's label is the category that holds."""
    scores = result_of(text)["intent"]["scores"]
    return {"categories": {name: score > 0.5 for name, score in scores.items()}, "category_scores": scores}


def vector_of(text: str) -> list[float]:
    """1024 numbers in which the text's label can be read."""
    vector = [float(digit) / 255 for digit in hashlib.shake_128(text.encode()).digest(1024)]
    place = LABELS.index(label_of(text))
    return [number + 20.0 if at == place else number for at, number in enumerate(vector)]


def embedded(texts: list[str]) -> web.Response:
    """Vectors, in another order than the texts: `index` says whose each is."""
    data = [{"object": "embedding", "index": at, "embedding": vector_of(text)} for at, text in enumerate(texts)]
    usage = {"prompt_tokens": 7 * len(texts), "completion_tokens": 0, "total_tokens": 7 * len(texts)}
    body = {"id": "e-1", "object": "list", "model": "mistral-embed", "data": data[::-1], "usage": usage}
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def completed(body: dict[str, Any], content: str | None = None, finish: str = "stop") -> web.Response:
    """An answer that follows the request's schema: the text's label for every target that has it, else
    the first, or of several none."""
    if content is None:
        texts, schema = prompted_texts(body), body["response_format"]["json_schema"]["schema"]
        if len(texts) == 1:
            answer = _filled(schema, texts[0])
        else:
            of_text = schema["properties"]["answers"]["items"]
            answer = {"answers": [_filled(of_text, text, number) for number, text in enumerate(texts, 1)]}
        content = orjson.dumps(answer).decode()
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
    reply = {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
        "usage": usage,
    }
    return web.Response(body=orjson.dumps(reply), content_type="application/json")


def prompted_texts(body: dict[str, Any]) -> list[str]:
    """The texts that a chat model is asked about: the last message, or those on its numbered lines."""
    said: str = body["messages"][-1]["content"]
    if "answers" not in body["response_format"]["json_schema"]["schema"]["properties"]:
        return [said]
    return [orjson.loads(line)["text"] for line in said.split("\n")]


def _filled(schema: dict[str, Any], text: str, number: int = 0) -> dict[str, Any]:
    label, answer = label_of(text), dict[str, Any]()
    for name, part in schema["properties"].items():
        if part["type"] == "integer":
            answer[name] = number
            continue
        labels = part["items"]["enum"] if part["type"] == "array" else part["enum"]
        if part["type"] == "array":
            answer[name] = [label] if label in labels else []
        else:
            answer[name] = label if label in labels else labels[0]
    return answer


def ok(results: Any) -> web.Response:
    """An answer with these results."""
    body = orjson.dumps({"id": "c-1", "model": "m", "results": results})
    return web.Response(body=body, content_type="application/json")


def refuse_texts_with(word: str, status: int = 422) -> Reply:
    """Refuse every request that holds a text with `word` in it."""

    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        del body
        if any(word in text for text in texts):
            return web.Response(status=status, body=b'{"message":"Input text refused"}')
        return None

    return reply


def first_times(count: int, make: Callable[[list[str]], web.Response]) -> Reply:
    """Answer the first `count` requests with what `make` returns."""
    left = count

    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        nonlocal left
        del body
        if left <= 0:
            return None
        left -= 1
        return make(texts)

    return reply
