"""One row → its text and labels, or the reason why it cannot be used. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from labelmill.contracts.bounds import fault_of_label, fault_of_targets, shown
from labelmill.contracts.specs import PrepareSpec
from labelmill.core.readers.bad_rows import can_be_utf8, kind_of_value, value_as_text
from labelmill_worker.prepare.label_lists import labels_in_text

BLANK_TEXT, BLANK_LABEL, NOT_WHERE, BAD_ROW = "blank_text", "blank_label", "not_where", "bad_row"


class UnusableRow(Exception):
    """`reason` is a key of `dropped`; `detail` says more for a bad row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """`body` is the JSON object without its labels; `labels` holds, per target in order, one label, or
    for a multi-label target any number."""

    body: bytes
    labels: list[list[str]]


@dataclass
class TargetList:
    """Targets in output order, and which of them take several labels. Factory rows fill it from the first good row."""

    names: list[str] = field(default_factory=list)
    multi: list[bool] = field(default_factory=list)
    body_key: str = ""  #: `text` or `messages`, for factory rows.


Parser = Callable[[dict[str, Any]], ParsedRow]


def parser_of(spec: PrepareSpec) -> tuple[TargetList, Parser]:
    """The parser for a specification, and the targets it fills."""
    if spec.format == "factory":
        targets = TargetList()
        return targets, lambda values: parse_factory_row(values, targets)
    targets = TargetList([t.name for t in spec.targets], [t.multi for t in spec.targets])
    return targets, lambda values: parse_column_row(values, spec)


def parse_column_row(values: dict[str, Any], spec: PrepareSpec) -> ParsedRow:
    """A row whose columns are mapped by `spec`. Raises UnusableRow."""
    for column, wanted in spec.where:
        if value_as_text(values.get(column)) != wanted:
            raise UnusableRow(NOT_WHERE)
    given = values.get(spec.text)
    chat = isinstance(given, list) and bool(given) and isinstance(given[0], dict)
    body = {"messages": _messages(given)} if chat else {"text": _text(spec.text, given)}
    labels = []
    for target in spec.targets:
        cell = values.get(target.column)
        labels.append(_several(target.column, cell, spec.separator) if target.multi else [_one(target.column, cell)])
    return ParsedRow(_body(body), labels)


def parse_factory_row(values: dict[str, Any], targets: TargetList) -> ParsedRow:
    """`{"text" or "messages": …, "labels": {target: label or labels}}`. Raises UnusableRow."""
    key = "messages" if "messages" in values else "text"
    if key not in values:
        raise UnusableRow(BAD_ROW, "there is neither 'text' nor 'messages'")
    given = values.get("labels")
    if not isinstance(given, dict) or not given:
        raise UnusableRow(BAD_ROW, "'labels' is not an object of target and label")
    body = _messages(values[key]) if key == "messages" else _text(key, values[key])
    if any(label is None for label in given.values()):
        raise UnusableRow(BLANK_LABEL)
    if not targets.names:
        if fault := fault_of_targets(given):
            raise UnusableRow(BAD_ROW, fault)
        targets.names = list(given)
        targets.multi = [isinstance(label, list) for label in given.values()]
        targets.body_key = key
    if key != targets.body_key:
        raise UnusableRow(BAD_ROW, f"there is {key!r} where earlier rows have {targets.body_key!r}")
    if given.keys() != set(targets.names):
        raise UnusableRow(
            BAD_ROW,
            f"its targets are {_listed(given)}, those of earlier rows {_listed(targets.names)}",
        )
    labels = []
    for name, multi in zip(targets.names, targets.multi, strict=True):
        if multi and not isinstance(given[name], list):
            raise UnusableRow(BAD_ROW, f"{name!r} is one label where earlier rows have a list")
        labels.append(_several(name, given[name]) if multi else [_one(name, given[name])])
    return ParsedRow(_body({key: body}), labels)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names))


def _body(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError as error:  # messages may hold anything
        raise UnusableRow(BAD_ROW, f"it cannot be written as JSON: {error}") from error


def _text(column: str, value: Any) -> str:
    text = value_as_text(value)
    if text is None:
        raise UnusableRow(BAD_ROW, f"{column!r} is {kind_of_value(value)}, not a text")
    if not text or text.isspace():
        raise UnusableRow(BLANK_TEXT)
    if not can_be_utf8(text):
        raise UnusableRow(BAD_ROW, f"{column!r} is not UTF-8")
    return text


def _one(column: str, value: Any) -> str:
    label = value_as_text(value)
    if label is None:
        raise UnusableRow(BAD_ROW, f"{column!r} is {kind_of_value(value)}, not one label")
    label = label.strip()
    if not label:
        raise UnusableRow(BLANK_LABEL)
    if fault := fault_of_label(label):
        raise UnusableRow(BAD_ROW, f"the label in {column!r} {fault}")
    return label


def _several(column: str, value: Any, separator: str | None = None) -> list[str]:
    """A list, or a text that holds several labels (`labels_in_text`), each label once.

    An empty list is an answer: no label applies. What is absent, null or an empty text is missing.
    """
    if isinstance(value, bytes):
        value = value_as_text(value)
    if isinstance(value, str):
        try:
            value = labels_in_text(value, separator)
        except ValueError as error:
            raise UnusableRow(BAD_ROW, f"{column!r} is a broken list of labels") from error
    elif hasattr(value, "tolist"):
        value = value.tolist()
    elif value is None:
        raise UnusableRow(BLANK_LABEL)
    if not isinstance(value, list):
        raise UnusableRow(BAD_ROW, f"{column!r} is {kind_of_value(value)}, not a list of labels")
    blank = (None, "")
    found = (label.strip() if isinstance(label, str) else label for label in value)
    labels = dict.fromkeys(_one(column, label) for label in found if label not in blank)
    if value and not labels:
        raise UnusableRow(BLANK_LABEL)
    return list(labels)


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in value
    ):
        raise UnusableRow(BAD_ROW, "'messages' is not a list of objects with 'role' and 'content'")
    if not any(message["content"].strip() for message in value):
        raise UnusableRow(BLANK_TEXT)
    return value
