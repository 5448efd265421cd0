"""The status of each kind of job, and what lists of jobs hold."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from labelmill.contracts.documents.parts import (
    Checkpoint,
    Cost,
    Estimate,
    EvaluationSummary,
    Labels,
    Progress,
    RemoteJobEntry,
    RowCounts,
    TargetMetrics,
    WaitingFor,
)

JobKindName = Literal["dataset", "training", "batch", "evaluation"]


class SubmittedDocument(TypedDict):
    """A job that was submitted, approved, cancelled or retried."""

    id: str
    kind: JobKindName
    state: str


class JobHead(TypedDict):
    """The fields that every job's document begins with. Times are in ISO form, in UTC."""

    id: str
    kind: str
    state: str
    created_at: str | None
    finished_at: str | None
    error: str | None
    error_code: str | None
    metadata: dict[str, str]


class JobEntry(JobHead):
    """A job in a list of jobs."""

    name: str | None
    model: str | None
    progress: Progress | None
    cost: Cost | Estimate | None


class RunningHead(JobHead):
    """The fields that every status document begins with."""

    progress: Progress | None
    waiting_for: WaitingFor | None


class DatasetDocument(RunningHead):
    """The status of a preparation. `files`: split → path; `dropped`: reason → rows."""

    kind: Literal["dataset"]  # type: ignore[misc] # of all kinds, this one
    name: str
    version: int | None
    splits: dict[str, int] | None
    labels: Labels | None
    dropped: dict[str, int] | None
    fingerprint: str | None
    files: dict[str, str] | None
    repeats: str | None
    report: dict[str, Any] | None


class TrainingDocument(RunningHead):
    """The status of a training. `model` is null until it has succeeded; `tokens_left_of_month`: of the model that its
    latest batch asks, as a batch has it."""

    kind: Literal["training"]  # type: ignore[misc] # of all kinds, this one
    model: str | None
    name: str
    dataset: str
    method: str
    remote_job: str | None
    remote_status: str | None
    remote_model: str | None
    tokens_left_of_month: int | None
    estimate: Estimate | None
    max_cost: float | None
    cost: Cost | None
    checkpoints: list[Checkpoint]
    batch: str | None
    details: dict[str, Any] | None


class BatchDocument(RunningHead):
    """The status of a batch. `failures`: error code → rows, once it has ended; `mode_reason`: why it runs as it does
    now; `remote_model`: what Mistral is asked for; `tokens_left_of_month`: of that model's monthly limit, where Mistral
    told it in this month."""

    kind: Literal["batch"]  # type: ignore[misc] # of all kinds, this one
    model: str
    remote_model: str | None
    tokens_left_of_month: int | None
    mode: str
    deadline_at: str | None
    mode_reason: str | None
    remote_jobs: list[RemoteJobEntry]
    priority: str
    rows: RowCounts
    duplicates: int
    skipped: int
    cached: int
    requests: int
    tokens: int
    estimate: Estimate | None
    max_cost: float | None
    cost: Cost | None
    started_at: str | None
    failures: dict[str, int]


class EvaluationDocument(RunningHead):
    """The status of an evaluation. `metrics`: target → figures; `remote_model`: what Mistral is asked for;
    `tokens_left_of_month` as a batch has it."""

    kind: Literal["evaluation"]  # type: ignore[misc] # of all kinds, this one
    model: str
    remote_model: str | None
    tokens_left_of_month: int | None
    dataset: str
    split: str
    batch: str | None
    calibration_batch: str | None
    max_cost: float | None
    cost: Cost | None
    metrics: dict[str, TargetMetrics] | None
    summary: EvaluationSummary | None


JobDocument = DatasetDocument | TrainingDocument | BatchDocument | EvaluationDocument
