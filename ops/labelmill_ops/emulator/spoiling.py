"""Good answers made bad. Pure: the bytes of an answer in, the bytes of a wrong one out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

_NOT_A_LABEL = "no-such-label"
_MARK = '"\u2021"'  # stands for what JSON cannot write until the document is text

Document = dict[str, Any]


def spoil_content(kind: str, body: bytes) -> bytes:
    """The answer with the fault in it; an answer in which the fault has no place stays as it is."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    if not isinstance(document, dict):
        return body
    return _SPOILERS[kind](document)


def _results(document: Document) -> list[Any]:
    """The list that holds one entry a text: of classifications, embeddings or chats."""
    for key in ("results", "data", "choices"):
        if isinstance(document.get(key), list):
            found: list[Any] = document[key]
            return found
    return []


def _scores_in(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of each target of a classification, or those of a moderation."""
    answers = [answer.get("scores") for answer in entry.values() if isinstance(answer, dict)]
    return [scores for scores in (*answers, entry.get("category_scores")) if isinstance(scores, dict) and scores]


def _too_few(document: Document) -> bytes:
    del _results(document)[-1:]
    return orjson.dumps(document)


def _too_many(document: Document) -> bytes:
    found = _results(document)
    found += found[-1:]
    return orjson.dumps(document)


def _unknown_label(document: Document) -> bytes:
    for entry in _results(document)[:1]:
        if isinstance(message := entry.get("message"), dict):  # a chat: its labels stand in a JSON text
            message["content"] = _other_labels(message.get("content"))
            continue
        for scores in _scores_in(entry):
            scores[_NOT_A_LABEL] = scores.pop(next(iter(scores)))
    return orjson.dumps(document)


def _other_labels(content: Any) -> Any:
    try:
        said = orjson.loads(content)
    except (orjson.JSONDecodeError, TypeError):
        return content
    if not isinstance(said, dict):
        return content
    return orjson.dumps(
        {target: [_NOT_A_LABEL] if isinstance(value, list) else _NOT_A_LABEL for target, value in said.items()}
    ).decode()


def _numbered(change: Callable[[list[Any]], object]) -> Callable[[Document], bytes]:
    """Change the list of answers that a chat model gave to several texts."""

    def spoil(document: Document) -> bytes:
        for entry in _results(document)[:1]:
            message = entry.get("message")
            if not isinstance(message, dict):
                continue
            try:
                said = orjson.loads(message.get("content") or "")
            except (orjson.JSONDecodeError, TypeError):
                continue
            lists = [value for value in said.values() if isinstance(value, list)] if isinstance(said, dict) else []
            if len(lists) == 1 and len(lists[0]) > 1 and all(isinstance(one, dict) for one in lists[0]):
                change(lists[0])
                message["content"] = orjson.dumps(said).decode()
        return orjson.dumps(document)

    return spoil


def _swap(answers: list[Any]) -> None:
    answers[0], answers[1] = answers[1], answers[0]


def _repeat_number(answers: list[Any]) -> None:
    key = next(iter(answers[0]))  # the number comes first
    answers[1][key] = answers[0][key]


def _with_score(written: str) -> Callable[[Document], bytes]:
    def spoil(document: Document) -> bytes:
        for entry in _results(document)[:1]:
            if isinstance(vector := entry.get("embedding"), list) and vector:
                vector[0] = _MARK[1:-1]
                continue
            for scores in _scores_in(entry):
                scores[next(iter(scores))] = _MARK[1:-1]
        return orjson.dumps(document).replace(_MARK.encode(), written.encode())

    return spoil


_SPOILERS: dict[str, Callable[[Document], bytes]] = {
    "too-few": _too_few,
    "too-many": _too_many,
    "unknown-label": _unknown_label,
    "answers-too-few": _numbered(lambda answers: answers.pop()),
    "answers-too-many": _numbered(lambda answers: answers.append(dict(answers[-1]))),
    "answers-swapped": _numbered(_swap),
    "answers-repeated": _numbered(_repeat_number),
    "nan": _with_score("NaN"),
    "infinity": _with_score("1e999"),
}
