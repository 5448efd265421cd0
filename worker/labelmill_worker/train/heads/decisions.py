"""From scores of rows that a model has not seen to its thresholds: tuned for F1, or certified for a precision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import Target
from labelmill.contracts.specs import Aim
from labelmill_worker.train.heads.certified import (
    DELTA,
    NEVER_REACHED,
    Certified,
    certified_threshold,
    rows_needed,
)
from labelmill_worker.train.heads.thresholds import tune_thresholds

Scores = NDArray[np.float32]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Wanted:
    """What a training asks of its thresholds. `precisions`: target, TARGET.LABEL or `*` → the precision asked for. A
    label with one of its own is left out of its target's."""

    aim: Aim = "micro"
    precisions: Mapping[str, float] = field(default_factory=dict)

    def of_target(self, target: Target) -> float | None:
        """The precision that all answers to a target are to have."""
        return self.precisions.get(target.name, self.precisions.get("*"))

    def of_labels(self, target: Target) -> dict[str, float]:
        """label → the precision that it is to have by itself."""
        named = {label: self.precisions.get(f"{target.name}.{label}") for label in target.labels}
        return {label: precision for label, precision in named.items() if precision is not None}

    def asks_precision_of(self, target: Target) -> bool:
        """Whether a precision is asked for of a target or of some label of it."""
        return self.of_target(target) is not None or bool(self.of_labels(target))


class AskedPrecision(TypedDict):
    """What is said of a precision that was asked for; `said` is a sentence for people."""

    of: str
    precision: float
    threshold: float | None
    answers: int
    right: int
    tested: int
    said: str


@dataclass(frozen=True)
class Chosen:
    """A target's part of a version's `thresholds`, None: none; and what is to be said of each precision asked for."""

    thresholds: float | dict[str, float] | None
    precisions: list[AskedPrecision]


def choose_thresholds(scores: Scores, truth: Truth, target: Target, wanted: Wanted, *, unseen: bool) -> Chosen:
    """`scores` and `truth` (rows, labels). `unseen`: they are of the validation split; on others no precision can be
    certified."""
    tuned = tune_thresholds(scores, truth, target, wanted.aim) if target.multi and len(scores) else None
    if not wanted.asks_precision_of(target):
        return Chosen(tuned, [])
    if not unseen:
        scores, truth = scores[:0], truth[:0]
    found = _several(scores, truth, target, wanted) if target.multi else _single(scores, truth, target, wanted)
    if target.multi and tuned is not None and wanted.of_target(target) is None:
        assert isinstance(found.thresholds, dict)  # noqa: S101 - of a multi-label target they are by label
        return Chosen(tuned | found.thresholds, found.precisions)
    return found


def _single(scores: Scores, truth: Truth, target: Target, wanted: Wanted) -> Chosen:
    top, best = scores.argmax(axis=1), scores.max(axis=1)
    right = truth[np.arange(len(scores)), top]
    by_itself = wanted.of_labels(target)
    numbers = [target.labels.index(label) for label in by_itself]
    said: list[AskedPrecision] = []
    of_all = 0.0
    if (precision := wanted.of_target(target)) is not None:
        rest = ~np.isin(top, numbers)
        of_all = _said(said, target.name, precision, certified_threshold(best[rest], right[rest], precision))
    if not by_itself:
        return Chosen(of_all, said)
    thresholds = dict.fromkeys(target.labels, of_all)
    for number, (label, asked) in zip(numbers, by_itself.items(), strict=True):
        is_top = top == number
        certified = certified_threshold(best[is_top], right[is_top], asked)
        thresholds[label] = _said(said, f"{target.name}.{label}", asked, certified)
    return Chosen(thresholds, said)


def _several(scores: Scores, truth: Truth, target: Target, wanted: Wanted) -> Chosen:
    by_itself = wanted.of_labels(target)
    said: list[AskedPrecision] = []
    thresholds: dict[str, float] = {}
    if (precision := wanted.of_target(target)) is not None:
        # the others by one threshold: a pair of row and label is an answer
        rest = np.array([label not in by_itself for label in target.labels])
        certified = certified_threshold(scores[:, rest].ravel(), truth[:, rest].ravel(), precision)
        thresholds = dict.fromkeys(target.labels, _said(said, target.name, precision, certified))
    for label, asked in by_itself.items():
        number = target.labels.index(label)
        certified = certified_threshold(scores[:, number], truth[:, number], asked)
        thresholds[label] = _said(said, f"{target.name}.{label}", asked, certified)
    return Chosen(thresholds, said)


def _said(said: list[AskedPrecision], name: str, precision: float, found: Certified) -> float:
    """Note what was found. Returns the threshold."""
    share = f"{precision:.4g}"
    if found.threshold is not None:
        sentence = (
            f"{name}: a precision of {share} is certified from a score of {found.threshold:.4f} on: of "
            f"{found.of:,} answers on validation {found.answers:,} reach it, {found.right:,} of them right"
        )
    else:
        sentence = (
            f"{name}: a precision of {share} cannot be certified with the {found.of:,} answers on validation (even "
            f"without any mistake it takes {rows_needed(precision, DELTA):,}), so nothing is answered: ask for less, "
            "prepare more validation rows, or clear the thresholds"
        )
    said.append(
        {
            "of": name,
            "precision": precision,
            "threshold": found.threshold,
            "answers": found.answers,
            "right": found.right,
            "tested": found.of,
            "said": sentence,
        }
    )
    return NEVER_REACHED if found.threshold is None else found.threshold
