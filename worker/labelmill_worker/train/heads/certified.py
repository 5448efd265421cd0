"""A threshold above which answers are right as often as was asked for, certified on rows the fit has not seen. Pure.

Thresholds are tested one after the other, from the safest down, each by the Clopper-Pearson bound of the rows that
reach it: whether so few mistakes would be luck if the precision were lower than asked for. The first that fails ends
it, so the chance that any test is passed wrongly is that of one test. The steps depend on the number of rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

DELTA = 0.1  #: In so many of all trainings the true precision may be lower than what was asked for.
NEVER_REACHED = 2.0  #: The threshold where none is certified: no score reaches it.
#: The next test is of so many more answers at least, and of a twentieth more.
_MIN_STEP, _SHARE = 5, 20

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Certified:
    """The lowest threshold that passed; None: none did. Of the answers that reach it: how many, and how many are right;
    `of`: how many were tested in all."""

    threshold: float | None
    answers: int
    right: int
    of: int


def certified_threshold(scores: Scores, right: NDArray[np.bool_], precision: float, delta: float = DELTA) -> Certified:
    """The lowest threshold above which at least a share of `precision` of answers is right, but for a chance of
    `delta`. `scores` and whether they are `right`: of answers to rows that the model was not fitted on."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(right[order])
    certified = Certified(None, 0, 0, len(ranked))
    for size in _sizes(len(ranked), rows_needed(precision, delta)):
        # rows of one score are answered together
        taken = int(np.searchsorted(-ranked, -ranked[size - 1], side="right"))
        if chance_of(taken - int(hits[taken - 1]), taken, precision) > delta:
            break
        certified = Certified(float(ranked[taken - 1]), taken, int(hits[taken - 1]), len(ranked))
    return certified


def rows_needed(precision: float, delta: float = DELTA) -> int:
    """How many answers without any mistake show such a precision."""
    return ceil(log(delta) / log(precision))


def chance_of(mistakes: int, answers: int, precision: float) -> float:
    """The chance of so few mistakes, or fewer, where the precision is just `precision`. The lower Clopper-Pearson bound
    at a level lies above `precision` where this is below the level."""
    from scipy.stats import binom  # noqa: PLC0415 - slow to import, and only trainings need it

    return float(binom.cdf(mistakes, answers, 1 - precision))


def _sizes(answers: int, first: int) -> list[int]:
    """How many of the best answers each test is of."""
    sizes, size = [], first
    while size < answers:
        sizes.append(size)
        size += max(_MIN_STEP, size // _SHARE)
    return [*sizes, answers] if answers >= first else []
