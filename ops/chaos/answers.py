"""What the stand-in answers: a function of the text alone, so that the checker knows the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

LABELS = ("alpha", "beta", "gamma", "delta")  #: Of the single-label target `intent`.
TAGS = ("blue", "green", "red")  #: Of the multi-label target `tags`.
REFUSED_WORD = "forbidden"  #: Requests with such a text are refused with 422.
DIMENSIONS = 1024

Labels = str | list[str]


def label_of(text: str) -> str:
    """The label of a text."""
    return LABELS[_digest(text)[0] % len(LABELS)]


def tags_of(text: str) -> list[str]:
    """Its tags: one at least."""
    bits = 1 + _digest(text)[1] % 7
    return [tag for place, tag in enumerate(TAGS) if bits >> place & 1]


TRUTH: Mapping[str, Any] = {"intent": label_of, "tags": tags_of}  #: target → what a text's answer must be.


def result_of(text: str, targets: Sequence[str]) -> dict[str, Any]:
    """A text's part of an answer of `/v1/classifications`."""
    result: dict[str, Any] = {}
    if "intent" in targets:
        label = label_of(text)
        result["intent"] = {"scores": {name: 0.85 if name == label else 0.05 for name in LABELS}}
    if "tags" in targets:
        tags = tags_of(text)
        result["tags"] = {"scores": {name: 0.9 if name in tags else 0.1 for name in TAGS}}
    return result


def vector_of(text: str) -> list[float]:
    """A vector in which label and tags can be read."""
    vector = [byte / 256 for byte in hashlib.shake_128(text.encode()).digest(DIMENSIONS)]
    for place, name in enumerate((*LABELS, *TAGS)):
        vector[place] = 20.0 if name == label_of(text) or name in tags_of(text) else 0.0
    return vector


def embedded(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """An answer of `/v1/embeddings`, in another order than the texts: `index` says whose each vector is."""
    data = [{"object": "embedding", "index": at, "embedding": vector_of(text)} for at, text in enumerate(texts)]
    usage = {"prompt_tokens": 7 * len(texts), "completion_tokens": 0, "total_tokens": 7 * len(texts)}
    return {"id": "e", "object": "list", "model": model, "data": data[::-1], "usage": usage}


def completed(body: Mapping[str, Any]) -> dict[str, Any]:
    """An answer of `/v1/chat/completions` that keeps to the schema of the request."""
    text = body["messages"][-1]["content"]
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    answer: dict[str, Labels] = {
        name: TRUTH[name](text) if name in TRUTH else schema["enum"][0] for name, schema in properties.items()
    }
    message = {"role": "assistant", "content": orjson.dumps(answer).decode()}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55},
    }


def is_own_question(body: Mapping[str, Any]) -> bool:
    """Whether a worker asks about no text that was submitted, but about the model."""
    return not TRUTH.keys() >= body["response_format"]["json_schema"]["schema"]["properties"].keys()


def _digest(text: str) -> bytes:
    return hashlib.md5(text.encode()).digest()  # noqa: S324 - no secret
