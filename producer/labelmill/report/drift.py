"""Drift: whether a batch's answers differ from those that the model gave when it was measured. Pure.

Two things are tested: the labels given, and the best scores, which texts of another kind lower though their labels be
spread as before. Both tests hold for any number of rows; they share the chance of a false alarm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from labelmill.report.parts import Tone
from labelmill.report.two_samples import bins_p_value, label_sets_p_value, labels_p_value

LEVEL = 0.01  #: The chance that answers to texts of the same kind are called drift.
STRONG_INDEX = 0.25  #: The usual bound of the population stability index, beyond what is usual for so few rows.
STRONG_SHIFT = 0.25  #: Share of rows that changed sides of some score.
TOO_COARSE = 0.3  #: If a change of this share of the rows may go unnoticed, the absence of an alarm means nothing.
_SMOOTHING = 0.5  # rows added to each label, so that one without rows has no infinite weight


@dataclass(frozen=True)
class AnswerCounts:
    """A model's answers to some rows, counted, for one target."""

    rows: int
    #: Rows by their best label; of a multi-label target rows with each of its labels. None: not known.
    labels: Mapping[str, int] | None
    best_scores: Sequence[int] | None  #: Rows by best score, in equally wide bins from 0 to 1. None: not known.


@dataclass(frozen=True)
class Drift:
    """`psi`: the population stability index of the labels, None where they are not known. `unnoticed`: what share of
    the rows may change without an alarm. A p-value is None where that could not be tested."""

    psi: float | None
    p_labels: float | None
    p_scores: float | None
    level: float  #: The significance level of each p-value.
    unnoticed: float
    verdict: str
    tone: Tone


def drift_between(before: AnswerCounts, now: AnswerCounts, split: str, *, multi: bool) -> Drift | None:
    """Compare answers; those before are to the model's `split`. None when nothing can be compared."""
    if not before.rows or not now.rows:
        return None
    labels = sorted(before.labels.keys() | now.labels.keys()) if before.labels and now.labels else []
    old, new = ([(counts.labels or {}).get(label, 0) for label in labels] for counts in (before, now))
    p_labels = p_scores = None
    if multi and labels:
        p_labels = label_sets_p_value(old, before.rows, new, now.rows)
    elif len(labels) > 1:
        p_labels = labels_p_value(old, new)
    if before.best_scores and now.best_scores and _differ(before.best_scores, now.best_scores):
        p_scores = bins_p_value(before.best_scores, now.best_scores)
    if p_labels is None and p_scores is None:
        return None
    level = LEVEL / ((p_labels is not None) + (p_scores is not None))
    unnoticed = min(1.0, sqrt(-log(level / 2) / 2 * (1 / before.rows + 1 / now.rows)))
    psi = _stability_index(old, new) if labels else None
    usual = (len(labels) - 1) * (1 / before.rows + 1 / now.rows)
    fall = _fall(before.best_scores, now.best_scores) if p_scores is not None else 0.0
    sureness = "less" if fall > 0 else "more"
    tested = [
        (p_value < level, alike, unlike)
        for p_value, alike, unlike in (
            (
                p_labels,
                f"the labels are spread as in the {split} split",
                f"the labels are not spread as in the {split} split",
            ),
            (
                p_scores,
                f"the model is as sure of these texts as of the {split} split",
                f"the model is {sureness} sure of these texts than of the {split} split",
            ),
        )
        if p_value is not None
    ]
    is_strong = (psi or 0.0) - usual >= STRONG_INDEX or abs(fall) >= STRONG_SHIFT
    alarms = [unlike for is_alarm, _, unlike in tested if is_alarm]
    if alarms:
        verdict, tone = _alarm(" and ".join(alarms), is_strong=is_strong)
    else:
        verdict, tone = _no_alarm(" and ".join(alike for _, alike, _ in tested), split, unnoticed)
    return Drift(psi, p_labels, p_scores, level, unnoticed, verdict, tone)


def moved_labels(before: AnswerCounts, now: AnswerCounts) -> list[tuple[str, float, float]]:
    """(label, share of rows before, share now), sorted by the size of the change."""
    old, new = before.labels or {}, now.labels or {}
    if not old or not new:
        return []
    shares = [
        (label, old.get(label, 0) / before.rows, new.get(label, 0) / now.rows)
        for label in sorted(old.keys() | new.keys())
    ]
    return sorted(shares, key=lambda share: -abs(share[2] - share[1]))


def _differ(before: Sequence[int], now: Sequence[int]) -> bool:
    """Whether best scores carry information: those of prompts are all 1."""
    return int(np.count_nonzero(np.add(before, now))) > 1


def _stability_index(old: Sequence[int], new: Sequence[int]) -> float:
    p, q = (np.add(counts, _SMOOTHING) / (sum(counts) + _SMOOTHING * len(counts)) for counts in (old, new))
    return float(((q - p) * np.log(q / p)).sum())


def _fall(before: Sequence[int] | None, now: Sequence[int] | None) -> float:
    """How many more of the rows now lie below some score than before, where that differs most; below 0: fewer."""
    old, new = (np.cumsum(counts) / max(1, sum(counts)) for counts in (before or [0], now or [0]))
    gaps = new - old
    return float(gaps[np.abs(gaps).argmax()])


def _alarm(unlike: str, *, is_strong: bool) -> tuple[str, Tone]:
    if is_strong:
        return (
            f"Strong drift: {unlike}, so the accuracy measured there need not hold here. Have a person label a sample "
            "and evaluate on it before you rely on these labels."
        ), "bad"
    return (
        f"Some drift: {unlike}. Look at the labels that moved most and at the rows with the lowest scores. If the "
        "world changed so, all is well; if not, have a person label a sample of them."
    ), "warning"


def _no_alarm(alike: str, split: str, unnoticed: float) -> tuple[str, Tone]:
    if unnoticed > TOO_COARSE:
        return (
            f"Too few rows to tell drift: with so many here and in the {split} split a change of up to {unnoticed:.0%} "
            "of the rows may go unnoticed."
        ), "plain"
    return (
        f"No drift: {alike}, as far as these rows can tell. A change of fewer than {unnoticed:.0%} of the rows may go "
        "unnoticed."
    ), "good"
