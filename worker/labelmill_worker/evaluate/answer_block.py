"""The answers to some rows of one target, as they are handed to a tally."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.evaluate.scores import Scores


@dataclass(frozen=True)
class AnswerBlock:
    """`at`: places of the rows within the target's truth, ascending. Of rows that failed there is nothing."""

    at: NDArray[np.int64]
    labels: list[str | None]  #: None: abstained, or multi-label.
    label_lists: list[list[str] | None]  #: None: abstained, or single-label.
    scores: Scores  #: (rows, the model's labels)


def counts_by_name(names: list[str], counts: NDArray[Any]) -> dict[str, int]:
    """`{name: count}` of those that occur, in the alphabet's order."""
    return {names[at]: int(counts[at]) for at in sorted(range(len(names)), key=names.__getitem__) if counts[at]}
