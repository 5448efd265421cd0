"""Which of a prediction's scores are written in addition to its label and its own score: all, the best, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named

_TOP = re.compile(r"top:([1-9][0-9]{0,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ScoreChoice:
    """`at_most`: how many scores of each prediction, the best ones first; None: all, in label order."""

    at_most: int | None


ALL, NONE = ScoreChoice(None), ScoreChoice(0)


def parse_scores(written: str) -> ScoreChoice:
    """`none`, `top:K` or `all`. Raises InvalidInput."""
    if written in ("all", "none"):
        return ALL if written == "all" else NONE
    if match := _TOP.fullmatch(written):
        return ScoreChoice(int(match[1]))
    raise InvalidInput(f"{named('scores')} is none, all or top:K with a whole number from 1, not {shown(written)}")
