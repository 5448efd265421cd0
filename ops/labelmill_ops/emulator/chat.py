"""Answers of the chat models: a JSON schema filled in by how much a text resembles each label and the examples shown.

It reads the conversation as a model would: lines of the system message that begin with a label describe it, and turns
of a user and an assistant are examples. It knows nothing else.
"""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from labelmill_ops.emulator.embedding import embed

_LIKENESS_OF_MANY = 0.8  # of the best label of a list, from which further labels join it
_EXAMPLE_WEIGHT = 2.0


class UnsupportedSchemaError(ValueError):
    """A schema that the emulator cannot fill in; the message says why."""


def answer(messages: list[dict[str, Any]], schema: dict[str, Any]) -> str:
    """Fill in `schema` for the last message. Raises UnsupportedSchemaError."""
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        message = "the schema must describe an object with properties"
        raise UnsupportedSchemaError(message)
    system = "\n".join(text_of(message) for message in messages if message["role"] == "system")
    examples = _examples(messages)
    question = text_of(messages[-1])
    values = {name: _value(name, part, question, system, examples) for name, part in schema["properties"].items()}
    return orjson.dumps(values).decode()


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whose content may be in chunks."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(chunk.get("text", "")) for chunk in content if isinstance(chunk, dict))
    return content if isinstance(content, str) else ""


def _examples(messages: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    examples = []
    for asked, answered in pairwise(messages):
        if asked["role"] == "user" and answered["role"] == "assistant":
            try:
                shown = orjson.loads(text_of(answered))
            except orjson.JSONDecodeError:
                continue
            if isinstance(shown, dict):
                examples.append((text_of(asked), shown))
    return examples


def _value(
    name: str, schema: dict[str, Any], question: str, system: str, examples: list[tuple[str, dict[str, Any]]]
) -> str | list[str]:
    several = schema.get("type") == "array"
    labels = (schema.get("items") or {}).get("enum") if several else schema.get("enum")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        message = f"the property {name!r} has no enum of strings"
        raise UnsupportedSchemaError(message)
    likeness = _likeness(name, labels, question, system, examples)
    best = float(likeness.max())
    if not several:
        return str(labels[int(likeness.argmax())])
    return [label for label, score in zip(labels, likeness.tolist(), strict=True) if score >= _LIKENESS_OF_MANY * best]


def _likeness(
    name: str, labels: list[str], question: str, system: str, examples: list[tuple[str, dict[str, Any]]]
) -> Any:
    described = re.finditer(r"^- ([^:\n]+)(?::(.*))?$", system, re.MULTILINE)
    lines = {match[1].strip(): match[2] or "" for match in described}
    said = [f"{re.sub(r'[_-]+', ' ', label)} {lines.get(label, '')}" for label in labels]
    vectors = embed([question, *said, *(text for text, _ in examples)])
    alike = vectors[1:] @ vectors[0]
    scores = alike[: len(labels)].copy()
    for (_, shown), similarity in zip(examples, alike[len(labels) :].tolist(), strict=True):
        answered = shown.get(name)
        for label in answered if isinstance(answered, list) else [answered]:
            if label in labels:
                number = labels.index(label)
                scores[number] = max(scores[number], _EXAMPLE_WEIGHT * similarity)
    return np.maximum(scores, 1e-9)
