"""From scores of rows that a model has not seen to its thresholds: tuned for F1, or certified for a precision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """What a training asks of its thresholds. `precisions`: target, TARGET.LABEL or `*` → the precision asked for."""

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


@dataclass(frozen=True)
class Chosen:
    """A target's part of a version's `thresholds`, None: none; and what is to be said of each precision asked for."""

    thresholds: float | dict[str, float] | None
    precisions: list[dict[str, Any]]


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
    said: list[dict[str, Any]] = []
    of_all = 0.0
    if (precision := wanted.of_target(target)) is not None:
        of_all = _said(said, target.name, precision, certified_threshold(best, right, precision))
    by_label = {}
    for label, asked in wanted.of_labels(target).items():
        mine = top == target.labels.index(label)
        name = f"{target.name}.{label}"
        by_label[label] = max(of_all, _said(said, name, asked, certified_threshold(best[mine], right[mine], asked)))
    if not by_label:
        return Chosen(of_all, said)
    return Chosen(dict.fromkeys(target.labels, of_all) | by_label, said)


def _several(scores: Scores, truth: Truth, target: Target, wanted: Wanted) -> Chosen:
    said: list[dict[str, Any]] = []
    found: dict[str, float] = {}
    if (precision := wanted.of_target(target)) is not None:
        # every label by the same threshold: a pair of row and label is an answer
        limit = _said(said, target.name, precision, certified_threshold(scores.ravel(), truth.ravel(), precision))
        found = dict.fromkeys(target.labels, limit)
    for label, asked in wanted.of_labels(target).items():
        number = target.labels.index(label)
        certified = certified_threshold(scores[:, number], truth[:, number], asked)
        found[label] = max(found.get(label, 0.0), _said(said, f"{target.name}.{label}", asked, certified))
    return Chosen(found, said)


def _said(said: list[dict[str, Any]], name: str, precision: float, found: Certified) -> float:
    """Note what was found. Returns the threshold."""
    entry: dict[str, Any] = {
        "of": name,
        "precision": precision,
        "threshold": found.threshold,
        "answers": found.answers,
        "right": found.right,
        "tested": found.of,
    }
    share = f"{precision:.4g}"
    if found.threshold is not None:
        entry["said"] = (
            f"{name}: a precision of {share} is certified from a score of {found.threshold:.4f} on: of "
            f"{found.of:,} answers on validation {found.answers:,} reach it, {found.right:,} of them right"
        )
    else:
        entry["said"] = (
            f"{name}: a precision of {share} cannot be certified with the {found.of:,} answers on validation (even "
            f"without any mistake it takes {rows_needed(precision, DELTA):,}), so nothing is answered: ask for less, "
            "prepare more validation rows, or clear the thresholds"
        )
    said.append(entry)
    return NEVER_REACHED if found.threshold is None else found.threshold
