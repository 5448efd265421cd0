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


class TargetMetrics(TypedDict, total=False):
    """How well a model answers one target; docs/evaluation.md defines every figure."""

    accuracy: Required[float]
    macro_f1: Required[float | None]
    weighted_f1: Required[float | None]
    micro_f1: Required[float | None]
    per_label: dict[str, Any]
    confusion: dict[str, Any]
    log_loss: float | None
    brier: float | None
    ece: float | None
    intervals: dict[str, Any]
    rows: int
    answered: int
    abstained: int
    failed: int


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
