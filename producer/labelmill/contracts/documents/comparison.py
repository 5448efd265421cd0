"""Models side by side on the same rows."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from labelmill.contracts.documents.parts import Money


class ComparedModel(TypedDict):
    """A model of a comparison; figures are null where it was not measured. `targets`: target → its own figures."""

    model: str
    method: str
    evaluation: str
    state: str
    error: str | None
    rows: int | None
    seen_in_training: int | None
    failed: int | None
    cost_per_1000: Money | None
    seconds_per_1000: float | None
    targets: dict[str, dict[str, Any]]


class AgainstBest(TypedDict):
    """A model against the best. `only_this_right`: rows that only it got right."""

    model: str
    against: str
    only_this_right: int
    only_best_right: int
    p_value: float
    p_adjusted: float
    test: str
    significantly_worse: bool


class Judgement(TypedDict):
    """Which model is the best on some rows, and which are not significantly worse."""

    best: str
    rows: int
    margin: float | None
    accuracies: dict[str, float]
    intervals: dict[str, list[float]]
    largest_losses: dict[str, float]
    cheapest_not_worse: str | None
    not_worse: list[str]
    without_cost: list[str]
    comparisons: list[AgainstBest]
    multi: NotRequired[bool]


class ComparisonDocument(TypedDict):
    """The result of `compare`. `overall`: of all targets together; null while nothing could be compared."""

    dataset: str
    fingerprint: str | None
    split: str
    level: float
    margin: float | None
    models: list[ComparedModel]
    targets: dict[str, Judgement]
    overall: Judgement | None
    warnings: list[str]
    verdict: str | None
