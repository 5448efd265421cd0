"""Reading uploaded training files: what a row must look like, and why a file is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

LossFunction = Literal["single_class", "multi_class"]
MIN_LABELS = 2


class BadTrainingFileError(ValueError):
    """A training or validation file cannot be used; the message names file, line and reason."""


@dataclass(frozen=True)
class TrainedTarget:
    """One question a model answers, with its labels in the order of its scores."""

    name: str
    labels: tuple[str, ...]
    multi_label: bool
    weight: float = 1.0

    @property
    def loss_function(self) -> LossFunction:
        """Mistral's word for single-label or multi-label."""
        return "multi_class" if self.multi_label else "single_class"

    def as_json(self) -> dict[str, Any]:
        """Return the shape of the SDK's `ClassifierTargetResult`."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "weight": self.weight,
            "loss_function": self.loss_function,
        }

    @classmethod
    def from_json(cls, target: dict[str, Any]) -> "TrainedTarget":
        """Read what `as_json` wrote."""
        return cls(target["name"], tuple(target["labels"]), target["loss_function"] == "multi_class", target["weight"])


@dataclass(frozen=True)
class AskedTarget:
    """An entry of a job's `classifier_targets`."""

    name: str
    labels: tuple[str, ...]
    weight: float
    loss_function: LossFunction | None


@dataclass(frozen=True)
class Split:
    """Texts, and per target the label numbers of each."""

    texts: list[str]
    labels: dict[str, list[frozenset[int]]]


@dataclass(frozen=True)
class TrainingData:
    """All that a training needs."""

    targets: tuple[TrainedTarget, ...]
    train: Split
    validation: Split

    @property
    def tokens(self) -> int:
        """Estimated tokens of the training texts, four bytes each."""
        return sum(estimated_tokens(text) for text in self.train.texts)


@dataclass(frozen=True)
class _TrainingRow:
    where: str
    text: str
    labels: dict[str, str | tuple[str, ...]]


def estimated_tokens(text: str) -> int:
    """Return a rough token count (the emulator has no tokenizer), at least 1."""
    return max(1, (len(text.encode("utf-8", "replace")) + 3) // 4)


def chat_text(messages: Any) -> str:
    """Flatten a chat into the text that is classified. Raises ValueError if it is not a chat."""
    if not isinstance(messages, list) or not messages:
        message = "messages must be a list of messages"
        raise ValueError(message)
    parts = []
    for entry in messages:
        content = entry.get("content") if isinstance(entry, dict) else None
        if isinstance(content, list):
            content = " ".join(str(chunk.get("text", "")) for chunk in content if isinstance(chunk, dict))
        if not isinstance(content, str):
            message = "every message needs a content"
            raise ValueError(message)  # noqa: TRY004 - callers answer one error type
        parts.append(content)
    return "\n".join(parts)


def read_training_data(
    training: Sequence[tuple[str, bytes]],
    validation: Sequence[tuple[str, bytes]],
    asked: Sequence[AskedTarget] | None,
) -> TrainingData:
    """Read and check files given as (name, content). Raises BadTrainingFileError."""
    rows = [row for name, content in training for row in _rows(name, content)]
    validation_rows = [row for name, content in validation for row in _rows(name, content)]
    if not rows:
        message = "no training rows"
        raise BadTrainingFileError(message)
    kinds = {target: isinstance(labels, tuple) for target, labels in rows[0].labels.items()}
    for row in (*rows, *validation_rows):
        _check_targets(row, kinds)
    targets = _targets(rows, kinds, asked)
    return TrainingData(
        targets, _split(rows, targets, "classifier_targets"), _split(validation_rows, targets, "training")
    )


def _rows(name: str, content: bytes) -> Iterator[_TrainingRow]:
    if not content.strip():
        message = f"{name}: the file is empty"
        raise BadTrainingFileError(message)
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            message = f"{where}: not valid JSON: {error}"
            raise BadTrainingFileError(message) from error
        if not isinstance(row, dict):
            message = f"{where}: not a JSON object"
            raise BadTrainingFileError(message)
        try:
            yield _TrainingRow(where, _text(row), _labels(row))
        except ValueError as error:
            message = f"{where}: {error}"
            raise BadTrainingFileError(message) from error


def _text(row: dict[str, Any]) -> str:
    if "messages" in row:
        return chat_text(row["messages"])
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        message = "no text" if text is None else "text must be a string that is not empty"
        raise ValueError(message)
    return text


def _labels(row: dict[str, Any]) -> dict[str, str | tuple[str, ...]]:
    labels = row.get("labels")
    if not isinstance(labels, dict) or not labels:
        message = "no labels" if not labels else "labels must be an object of target: label"
        raise ValueError(message)
    checked: dict[str, str | tuple[str, ...]] = {}
    for target, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(label, str) and label for label in values):
            message = f"the labels of target {target!r} must be strings that are not empty"
            raise ValueError(message)
        checked[target] = tuple(values) if isinstance(value, list) else value
    return checked


def _check_targets(row: _TrainingRow, kinds: dict[str, bool]) -> None:
    if row.labels.keys() != kinds.keys():
        message = f"{row.where}: targets {sorted(row.labels)} differ from those of the first row, {sorted(kinds)}"
        raise BadTrainingFileError(message)
    for target, value in row.labels.items():
        if isinstance(value, tuple) != kinds[target]:
            message = f"{row.where}: target {target!r} has a list of labels in some rows and a single one in others"
            raise BadTrainingFileError(message)


def _targets(
    rows: Sequence[_TrainingRow], kinds: dict[str, bool], asked: Sequence[AskedTarget] | None
) -> tuple[TrainedTarget, ...]:
    labels_of: dict[str, set[str]] = {name: set() for name in kinds}
    for row in rows:
        for name, value in row.labels.items():
            labels_of[name].update(value if isinstance(value, tuple) else (value,))
    for name, labels in labels_of.items():
        if len(labels) < MIN_LABELS:
            message = (
                f"target {name!r} has {len(labels)} label(s) in the training files; at least {MIN_LABELS} are needed"
            )
            raise BadTrainingFileError(message)
    if not asked:
        return tuple(TrainedTarget(name, tuple(sorted(labels_of[name])), multi) for name, multi in kinds.items())
    names = [target.name for target in asked]
    if set(names) != kinds.keys() or len(names) != len(kinds):
        message = f"classifier_targets {names} differ from the targets of the training files, {sorted(kinds)}"
        raise BadTrainingFileError(message)
    specs = tuple(TrainedTarget(target.name, target.labels, kinds[target.name], target.weight) for target in asked)
    for target, spec in zip(asked, specs, strict=True):
        if target.loss_function not in (None, spec.loss_function):
            message = f"target {spec.name!r}: its rows are {spec.loss_function}, not {target.loss_function}"
            raise BadTrainingFileError(message)
    return specs


def _split(rows: Sequence[_TrainingRow], targets: Sequence[TrainedTarget], known_from: str) -> Split:
    numbers = {target.name: {label: number for number, label in enumerate(target.labels)} for target in targets}
    labels: dict[str, list[frozenset[int]]] = {target.name: [] for target in targets}
    for row in rows:
        for name, value in row.labels.items():
            try:
                numbers_of_labels = numbers[name]
                labels[name].append(
                    frozenset(numbers_of_labels[label] for label in (value if isinstance(value, tuple) else (value,)))
                )
            except KeyError as error:
                message = (
                    f"{row.where}: label {error.args[0]!r} of target {name!r} is not among the {known_from} labels"
                )
                raise BadTrainingFileError(message) from error
    return Split([row.text for row in rows], labels)
