"""Several labels in one text: a list as JSON or Python writes it, or labels with a separator between them. Pure."""

from __future__ import annotations

import re
from typing import Any

import orjson

_TOKEN = re.compile(
    r"""\s*(?:
        '(?P<single>(?:[^'\\]|\\.)*)' | "(?P<double>(?:[^"\\]|\\.)*)"
        | (?P<word>None|True|False) | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    )(?:\s*,|\s*$|\s+(?=['"]))""",  # NumPy prints arrays without commas
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})|(.))", re.DOTALL
)
_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


def labels_in_text(text: str, separator: str | None) -> list[Any]:
    """The labels in a cell of text, with white space around them. Raises ValueError for a broken list.

    Without `separator` they stand between bars, or between commas where there is no bar.
    """
    if text.lstrip().startswith("["):
        return _list(text.strip())
    return text.split(separator or ("|" if "|" in text else ","))


def _list(text: str) -> list[Any]:
    try:
        return list(orjson.loads(text))
    except ValueError:
        return _python_list(text)


def _python_list(text: str) -> list[Any]:
    """What `repr` makes of a list of texts, numbers, None, True and False. Nothing is evaluated."""
    if not text.endswith("]"):
        raise ValueError(text)
    inside = text[1:-1].strip()
    labels: list[Any] = []
    at = 0
    while at < len(inside):
        token = _TOKEN.match(inside, at)
        if token is None:
            raise ValueError(text)
        labels.append(_value(token))
        at = token.end()
    return labels


def _value(token: re.Match[str]) -> Any:
    if token["word"]:
        return {"None": None, "True": True, "False": False}[token["word"]]
    if token["number"]:
        return token["number"]  # as it is written: labels are texts
    return _ESCAPE.sub(_character, token["single"] if token["single"] is not None else token["double"])


def _character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code:
        return chr(int(code, 16))
    if escape[4] not in _CHARACTERS:
        raise ValueError(escape[0])
    return _CHARACTERS[escape[4]]
