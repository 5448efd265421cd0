"""Checks of Mistral's answers, and the decisions that follow from their scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.bounds import fault_of_label, fault_of_name
from labelmill.contracts.errors import InvalidInput, MalformedAnswer
from labelmill.contracts.label_schema import LabelSchema, Target

DEFAULT_MULTI_THRESHOLD = 0.5  #: A label of a multi-label target holds from this score on, unless the model says other.

_MAX_TARGETS = 1_000  #: Of a model; their numbers are kept in 16 bits.
MAX_FLOAT32 = float(np.finfo(np.float32).max)

Scores = list[NDArray[np.float32]]
"""For each target, float32 (rows, labels) in label order."""


class Decisions(NamedTuple):
    """What one target's scores say, an entry a row. A row that abstained has neither a label nor a list."""

    labels: list[str | None]
    label_lists: list[str | None] | None  #: JSON lists, of a multi-label target.
    best: NDArray[np.float32]
    abstained: NDArray[np.bool_]


def check_scores(results: object, count: int, schema: LabelSchema) -> Scores:
    """Turn `results` of an answer to `count` texts into arrays.

    Raises MalformedAnswer unless there are as many results as texts, every target and label is known and present, and
    every score is a finite number.
    """
    if not isinstance(results, list) or len(results) != count:
        found = len(results) if isinstance(results, list) else "no list of"
        raise MalformedAnswer(f"{found} results for {count} texts")
    try:
        if any(len(result) != len(schema.targets) for result in results):
            raise MalformedAnswer("an answer names other targets than the model's")
        return [_target_scores(results, target) for target in schema.targets]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"an answer has not the expected form: {type(error).__name__} {error}") from error


def _target_scores(results: Sequence[Any], target: Target) -> NDArray[np.float32]:
    size = len(target.labels)
    pick = itemgetter(*target.labels)
    name = target.name
    answers = [result[name]["scores"] for result in results]
    if any(len(scores) != size for scores in answers):
        raise MalformedAnswer(f"an answer to {name!r} has other labels than the model's")
    rows = [pick(scores) if size > 1 else (pick(scores),) for scores in answers]
    if len(rows) == 1:  # one text a request: checking it as an array would take longer than all else
        if not _are_numbers(rows[0]):
            raise MalformedAnswer(f"an answer to {name!r} has a score that is not a finite number")
        return np.array(rows, np.float32)
    values = np.array(rows, dtype=object if not rows else None).reshape(len(results), size)
    # what float32 cannot hold would be infinite; what is not a number is not under any bound
    if values.dtype.kind not in "fi" or not (np.abs(values) <= MAX_FLOAT32).all():
        raise MalformedAnswer(f"an answer to {name!r} has a score that is not a finite number")
    return values.astype(np.float32)


def _are_numbers(scores: Sequence[Any]) -> bool:
    """Whether float32 can hold them all. NaN makes the sum NaN, whatever `min` and `max` make of it."""
    if not {*map(type, scores)} <= {float, int}:
        return False
    return min(scores) >= -MAX_FLOAT32 and max(scores) <= MAX_FLOAT32 and not math.isnan(sum(scores))


def learn_schema(results: object, multi: Sequence[str]) -> LabelSchema:
    """The targets and labels of a model known by its id alone, from its first good answer. Raises MalformedAnswer."""
    try:
        if not isinstance(results, list):
            raise MalformedAnswer("an answer holds no list of results")
        first = results[0]
        targets = tuple(Target(name, tuple(sorted(answer["scores"])), name in multi) for name, answer in first.items())
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise MalformedAnswer("an answer has not the expected form") from error
    if not targets or not all(target.labels for target in targets):
        raise MalformedAnswer("an answer names no target or no label")
    if len(targets) > _MAX_TARGETS:
        raise MalformedAnswer(f"an answer names {len(targets)} targets")
    for target in targets:
        if fault := fault_of_name(target.name) or next(filter(None, map(fault_of_label, target.labels)), None):
            raise MalformedAnswer(f"an answer names a target or a label that {fault}")
    return LabelSchema(targets)


def require_targets(schema: LabelSchema, named: Iterable[str]) -> None:
    """Raise InvalidInput unless all that the options of a batch name are targets of the model."""
    targets = [target.name for target in schema.targets]
    for name in named:
        if name not in ("*", *targets):
            raise InvalidInput(f"--multi or --threshold names {name!r}; the model's targets are {', '.join(targets)}")


Thresholds = Mapping[str, float | Mapping[str, float]]
"""target, or `*` for all → the least best score that is believed; for a target of a model also label → the least score
from which that label is believed, or of a multi-label target holds."""


def decide(
    scores: NDArray[np.float32],
    target: Target,
    threshold: float | NDArray[np.float32] | None,
    limits: NDArray[np.float32] | float = DEFAULT_MULTI_THRESHOLD,
) -> Decisions:
    """Label every row: the best label, or for a multi-label target all whose score reaches their limit.

    A row whose best score is under `threshold`, or under its label's, abstains: both as float32, which is how scores
    are kept and shown.
    """
    best = scores.max(axis=1)
    if threshold is None:
        abstained = np.zeros(len(best), bool)
    elif isinstance(threshold, np.ndarray):
        abstained = best < threshold[scores.argmax(axis=1)]
    else:
        abstained = best < np.float32(threshold)
    if target.multi:
        nothing: list[str | None] = [None] * len(best)
        label_lists = [
            None if has_abstained else _label_list(row, target.labels)
            for row, has_abstained in zip(scores >= limits, abstained.tolist(), strict=True)
        ]
        return Decisions(nothing, label_lists, best, abstained)
    names: list[str | None] = [target.labels[index] for index in scores.argmax(axis=1).tolist()]
    for index in np.flatnonzero(abstained).tolist():
        names[index] = None
    return Decisions(names, None, best, abstained)


def _label_list(holds: NDArray[np.bool_], labels: Sequence[str]) -> str:
    return orjson.dumps([labels[index] for index in np.flatnonzero(holds).tolist()]).decode()


def threshold_of(target: str, *sources: Thresholds | None) -> float | None:
    """The threshold for a target: of the first source that has one by the target's name or for all (`*`)."""
    for source in sources:
        threshold = source.get(target, source.get("*")) if source else None
        if isinstance(threshold, (int, float)):
            return threshold
    return None


def abstain_under(
    target: Target, options: Thresholds | None, models: Thresholds | None
) -> float | NDArray[np.float32] | None:
    """Under which best score a row abstains: the batch's threshold, else the model's of a single-label target, which
    may be one for each label in label order. A multi-label target's say which labels hold; none of them makes a row
    abstain."""
    threshold = threshold_of(target.name, options, None if target.multi else models)
    if threshold is not None or target.multi or not models:
        return threshold
    by_label = models.get(target.name)
    if not isinstance(by_label, Mapping):
        return None
    return np.array([by_label.get(label, 0.0) for label in target.labels], np.float32)


def label_limits(target: Target, thresholds: Thresholds | None) -> NDArray[np.float32] | float:
    """From which score on each label of a multi-label target holds, in label order: the model's, or 0.5."""
    limits = thresholds.get(target.name, thresholds.get("*")) if thresholds else None
    if limits is None:
        return DEFAULT_MULTI_THRESHOLD
    if not isinstance(limits, Mapping):
        return float(np.float32(limits))  # set for all before the model's targets were known
    return np.array([limits.get(label, DEFAULT_MULTI_THRESHOLD) for label in target.labels], np.float32)
