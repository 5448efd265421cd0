"""Answers of the chat models: a JSON schema filled in by how much a text resembles each label and the examples shown.

It reads the conversation as a model would: lines of the system message that begin with a label describe it, and turns
of a user and an assistant are examples. Where the schema asks for a list of objects with a number each, every line of
the last message is a JSON object with a text. It knows nothing else.
"""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from labelmill_ops.emulator.embedding import embed
from labelmill_ops.emulator.token_logprobs import Part

_LIKENESS_OF_MANY = 0.8  # of the best label of a list, from which further labels join it
_EXAMPLE_WEIGHT = 2.0
_SURENESS = 4.0  # how much more probable a label is than another one that is less alike


class UnsupportedSchemaError(ValueError):
    """A schema that the emulator cannot fill in; the message says why."""


def answer(messages: list[dict[str, Any]], schema: dict[str, Any]) -> list[Part]:
    """Fill in `schema` for the last message. Returns the parts of the answer. Raises UnsupportedSchemaError."""
    properties = _properties(schema)
    system = "\n".join(text_of(message) for message in messages if message["role"] == "system")
    asked = text_of(messages[-1])
    if (numbered := _numbered(properties)) is None:
        return _filled(properties, asked, system, _turns(messages))
    name, key, parts = numbered
    examples = [one for said, shown in _turns(messages) for one in _numbered_examples(said, shown, name, key)]
    written: list[Part] = [(f"{{{_json(name)}:[{'{'}", None)]
    for number, text in enumerate(_lines(asked), 1):
        if number > 1:
            written.append((",{", None))
        written.append((f"{_json(key)}:{number},", None))
        written += _filled(parts, text, system, examples)[1:]
    return [*written, ("]}", None)]


def asked_texts(messages: list[dict[str, Any]], schema: dict[str, Any]) -> list[str]:
    """The texts that the last message asks about."""
    asked = text_of(messages[-1])
    return [asked] if _numbered(_properties(schema)) is None else _lines(asked)


def _properties(schema: Any) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, dict) and schema.get("type") == "object" else None
    if not isinstance(properties, dict):
        message = "the schema must describe an object with properties"
        raise UnsupportedSchemaError(message)
    return properties


def _numbered(properties: dict[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
    """Of a schema that asks for a list of objects with a number each: the list's name, the number's, and the other
    properties of the objects. None: of another one."""
    if len(properties) != 1:
        return None
    ((name, of_list),) = properties.items()
    items = of_list.get("items") if of_list.get("type") == "array" else None
    if not isinstance(items, dict) or items.get("type") != "object":
        return None
    parts = _properties(items)
    key = next((key for key, part in parts.items() if part.get("type") == "integer"), None)
    if key is None:
        message = "the objects of a list must have a number"
        raise UnsupportedSchemaError(message)
    return name, key, {one: part for one, part in parts.items() if one != key}


def _lines(asked: str) -> list[str]:
    """The texts of a message that holds a JSON object with a text on each line."""
    try:
        return [str(orjson.loads(line)["text"]) for line in asked.split("\n")]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        message = "a message for a list of answers must have a JSON object with a text on each line"
        raise UnsupportedSchemaError(message) from error


def _numbered_examples(asked: str, shown: dict[str, Any], name: str, key: str) -> list[tuple[str, dict[str, Any]]]:
    texts = _lines(asked)
    answers = [one for one in shown.get(name, ()) if isinstance(one, dict)]
    return [(texts[one[key] - 1], one) for one in answers if one.get(key) in range(1, len(texts) + 1)]


def _filled(
    properties: dict[str, Any], question: str, system: str, examples: list[tuple[str, dict[str, Any]]]
) -> list[Part]:
    """The parts of an object: its first is the brace."""
    parts: list[Part] = [("{", None)]
    for number, (name, schema) in enumerate(properties.items()):
        parts.append((f"{',' if number else ''}{_json(name)}:", None))
        parts.append(_value(name, schema, question, system, examples))
    return [*parts, ("}", None)]


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whose content may be in chunks."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(chunk.get("text", "")) for chunk in content if isinstance(chunk, dict))
    return content if isinstance(content, str) else ""


def _turns(messages: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Examples: what a user says and an assistant answers."""
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
) -> Part:
    several = schema.get("type") == "array"
    labels = (schema.get("items") or {}).get("enum") if several else schema.get("enum")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        message = f"the property {name!r} has no enum of strings"
        raise UnsupportedSchemaError(message)
    likeness = _likeness(name, labels, question, system, examples)
    best = float(likeness.max())
    if not several:
        weights = (likeness / best) ** _SURENESS
        return str(labels[int(likeness.argmax())]), dict(zip(labels, (weights / weights.sum()).tolist(), strict=True))
    alike = [label for label, one in zip(labels, likeness.tolist(), strict=True) if one >= _LIKENESS_OF_MANY * best]
    return _json(alike), None


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
