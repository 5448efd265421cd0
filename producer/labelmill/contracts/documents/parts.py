"""Parts that several documents share."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Required

from typing_extensions import TypedDict

Number = int | float
Labels = dict[str, dict[str, dict[str, int]]]  #: target → split → label → rows
Prices = Literal["reported", "counted"]


class Money(TypedDict):
    """An amount of money. `currency` is null for nothing that was paid."""

    amount: Number
    currency: str | None


class Estimate(TypedDict):
    """What a training or a batch is expected to cost, known before it spends anything."""

    amount: Number
    currency: str
    texts: NotRequired[int | None]
    tokens: NotRequired[int | None]


class Cost(TypedDict):
    """What was paid, by the ledger. `estimated`: tokens were counted here, because Mistral did not report all of them.
    `amount` is null where no price is known of a model that was asked, for the others would be a part of the cost."""

    amount: Number | None
    currency: str | None
    tokens: NotRequired[int | None]
    estimated: NotRequired[bool]
    prices_as_of: NotRequired[str | None]
    texts: NotRequired[int | None]


class Progress(TypedDict):
    """The progress of a job. `done` and `total` count rows; null where that is not known."""

    phase: str
    done: int | None
    total: int | None


class WaitingFor(TypedDict):
    """Why a job makes no progress. `since` is null where it is not known."""

    reason: str
    message: str
    since: str | None


class RowCounts(TypedDict):
    """The rows of a batch by state: `submitted` is the sum of the others."""

    submitted: int
    labelled: int
    abstained: int
    failed: int
    cancelled: int
    pending: int


class RemoteJobEntry(TypedDict):
    """A job of Mistral's Batch API. `id` is Mistral's, null until it is made; so is `status`, or it is Labelmill's next
    step."""

    id: str | None
    status: str
    rows: int


class Checkpoint(TypedDict):
    """Losses of a fine-tuning at a step."""

    step: int
    train_loss: float | None
    valid_loss: float | None


class LabelMetrics(TypedDict):
    """How well one label is given. `support`: the rows that have it."""

    precision: float
    recall: float
    f1: float
    support: int


class Intervals(TypedDict, total=False):
    """Confidence intervals `[low, high]` of the figures, null where `withheld` says why
    one would not hold."""

    accuracy: list[float] | None
    macro_f1: list[float] | None
    weighted_f1: list[float] | None
    micro_f1: list[float] | None
    withheld: dict[str, str]
    level: float
    resamples: int
    seed: int


class CoveragePoint(TypedDict):
    """The share of rows whose best score reaches a threshold, and how many of these are right."""

    threshold: float
    coverage: float
    accuracy: float | None


class LabelsPerRow(TypedDict):
    """Mean numbers of labels of a multi-label target."""

    given: float
    true: float


class CalibratedMetrics(TypedDict, total=False):
    """How good the scores are after the version's temperature."""

    temperature: Required[float]
    log_loss: float | None
    brier: float | None
    ece: float | None
    ece_by_luck: float | None


class TargetMetrics(TypedDict, total=False):
    """How well a model answers one target; docs/evaluation.md defines every figure. Those that not every evaluation has
    are read by `.get`. `confusion` of a single-label target: true label → given label → rows; of a multi-label one:
    label → `true_positive` and so on → rows."""

    accuracy: Required[float]
    macro_f1: Required[float | None]
    weighted_f1: Required[float | None]
    micro_f1: Required[float | None]
    per_label: Required[dict[str, LabelMetrics]]
    confusion: Required[dict[str, dict[str, int]]]
    labels_averaged: Required[int]
    log_loss: Required[float | None]
    brier: Required[float | None]
    ece: Required[float | None]
    ece_by_luck: float | None
    calibrated: CalibratedMetrics
    coverage: Required[list[CoveragePoint]]
    intervals: Required[Intervals]
    rows: Required[int]
    answered: Required[int]
    abstained: Required[int]
    failed: Required[int]
    unanswered: Required[int]
    accuracy_answered: Required[float | None]
    unseen_rows: int
    accuracy_unseen: float | None
    unknown_labels: dict[str, int]  #: Of the dataset alone: label → rows.
    absent_labels: list[str]  #: Of the model alone.
    labels_per_row: LabelsPerRow  #: Of multi-label targets alone, as the next one.
    micro_f1_every_label: float


class EvaluationSummary(TypedDict, total=False):
    """Counts, time and cost of an evaluation, of all targets."""

    rows: int
    answered: int
    failed: int
    failures: dict[str, int]
    duplicates: int
    seen_in_training: int | None
    requests: int
    tokens: int
    tokens_are: Prices
    cost: Money | None
    cost_per_1000: Money | None
    prices_as_of: str | None
    seconds: float | None
    seconds_per_1000: float | None
    calibration: dict[str, Any] | None
