"""A row of results."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict


class Prediction(TypedDict):
    """The answer for one target. A single-label target has `label`, a multi-label one has `labels` in its place.

    `scores` are those that were asked for. `best` is the best label of a row that abstained, which has no label.
    """

    label: str | None
    labels: list[str]
    score: float
    scores: dict[str, float]
    abstained: NotRequired[bool]
    best: NotRequired[str]


class RowError(TypedDict):
    """Why a row has no answer."""

    code: str
    message: str


class ResultRow(TypedDict):
    """A row of a batch or an evaluation. `predictions`: by target; empty where there is an `error`."""

    row: int
    id: str | None
    text: str
    predictions: dict[str, Prediction]
    error: RowError | None
