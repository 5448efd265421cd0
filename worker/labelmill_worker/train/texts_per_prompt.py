"""How many texts go into a prompt, chosen by trials on rows of validation. Pure.

Each number of texts is compared with one text a prompt on the same rows. It holds if the upper bound of what accuracy
it may lose is at most a point, for every target; the bound is one-sided, holds with a chance of 95 %, and is corrected
for how many numbers are tried (Bonferroni), whichever of them are. The largest number that holds is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.core.paired_loss import largest_loss, rows_to_show

LOSS, LEVEL = 0.01, 0.05
MAX_ROWS = 5_000  #: Of validation, evenly chosen: more cost more and show little more.
_LARGEST = 64

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """What came of one number of texts. `right`: target → for each row that has a label whether it was given."""

    texts: int
    right: Mapping[str, Bools]
    requests: int
    tokens: int


@dataclass(frozen=True)
class Choice:
    """The number that is taken, the figures of each, and a sentence for people."""

    texts: int
    tried: Sequence[Mapping[str, Any]]
    said: str

    def document(self, rows: int) -> dict[str, Any]:
        """For the training's details."""
        return {"chosen": self.texts, "rows": rows, "tried": list(self.tried), "said": self.said}


def numbers_to_try(rows: int, at_most: int) -> list[int]:
    """The numbers above one that are compared with one, smallest first: none where so few rows could not show that any
    holds."""
    doubled = [number for number in (2**power for power in range(1, 7)) if number <= min(_LARGEST, at_most, rows)]
    return doubled if doubled and rows >= rows_needed(len(doubled)) else []


def rows_needed(numbers: int) -> int:
    """How many rows can show that any of so many numbers holds."""
    return rows_to_show(LOSS, LEVEL / max(1, numbers))


def choose(trials: Sequence[Trial], planned: int) -> Choice:
    """The largest number that holds. `trials`: that of one text first; `planned`: how many others were meant to be."""
    one, *others = trials
    tried: list[dict[str, Any]] = [_figures(one)]
    chosen = 1
    for trial in others:
        figures = _figures(trial) | {"loss_at_most": _losses(one, trial, LEVEL / planned)}
        figures["holds"] = max(figures["loss_at_most"].values()) <= LOSS
        tried.append(figures)
        if figures["holds"]:
            chosen = max(chosen, trial.texts)
    return Choice(chosen, tried, _sentence(chosen, tried))


def nothing_to_try(rows: int, at_most: int) -> Choice:
    """One text a prompt, because nothing else can be shown to be as good."""
    numbers = len(numbers_to_try(10**9, at_most))
    if not numbers:
        return Choice(1, [], "one text a prompt: the longest answers to two would be too long")
    needed = rows_needed(numbers)
    said = f"one text a prompt: it takes {needed:,} different texts in validation to show that more are as good, and "
    return Choice(1, [], f"{said}there are {rows:,}")


def _figures(trial: Trial) -> dict[str, Any]:
    accuracy = {name: float(right.mean()) if len(right) else None for name, right in trial.right.items()}
    return {"texts": trial.texts, "accuracy": accuracy, "requests": trial.requests, "tokens": trial.tokens}


def _losses(one: Trial, other: Trial, level: float) -> dict[str, float]:
    losses = {}
    for name, right in one.right.items():
        only_one = int((right & ~other.right[name]).sum())
        only_other = int((~right & other.right[name]).sum())
        losses[name] = round(largest_loss(only_one, only_other, len(right), level), 6)
    return losses


def _sentence(chosen: int, tried: Sequence[Mapping[str, Any]]) -> str:
    if chosen > 1:
        (figures,) = [one for one in tried if one["texts"] == chosen]
        worst = max(figures["loss_at_most"].values())
        saved = 1 - figures["tokens"] / tried[0]["tokens"] if tried[0]["tokens"] else None
        less = f" and {saved:.0%} fewer tokens" if saved is not None and saved > 0 else ""
        return f"{chosen} texts a prompt: at most {worst:.1%} less accuracy than with one (95% sure){less}"
    return "one text a prompt: none of the larger numbers was shown to cost at most 1% of accuracy"
