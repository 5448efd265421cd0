"""Documents about model versions."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from labelmill.contracts.documents.parts import Cost


class Measured(TypedDict):
    """A model's latest evaluation; `targets`: target → accuracy, macro and micro F1."""

    id: str
    dataset: str
    split: str
    targets: dict[str, dict[str, float | None]]


class ModelFacts(TypedDict):
    """The fields that every document about a version has. `targets`: target → number of labels; `warnings`: of its
    model at Mistral, such as that it will be retired."""

    model: str
    name: str
    version: int
    promoted: bool
    aliases: list[str]
    state: str
    method: str
    remote_model: str | None
    remote_state: str | None
    remote_wish: str | None
    remote_error: str | None
    targets: dict[str, int]
    multi_label: list[str]
    evaluated: Measured | None
    note: str | None
    warnings: list[str]


class ModelEntry(ModelFacts):
    """A version in the list of models; `training` and `dataset` are ids."""

    training: str | None
    dataset: str | None
    dataset_fingerprint: str | None
    created_at: str


class OfDataset(TypedDict):
    """The dataset that a version was trained on."""

    id: str
    dataset: str
    fingerprint: str | None
    files: dict[str, str] | None
    splits: dict[str, int] | None


class OfTraining(TypedDict):
    """The training that made a version."""

    id: str
    state: str
    method: str
    remote_files: dict[str, Any] | None
    remote_job: str | None
    cost: Cost | None


class OfEvaluation(TypedDict):
    """An evaluation of a version."""

    id: str
    state: str
    dataset: str
    split: str
    created_at: str


class OfBatch(TypedDict):
    """A batch that a version classified."""

    id: str
    state: str
    rows: int
    created_at: str


class OfBatches(TypedDict):
    """How many batches a version classified, and the latest."""

    count: int
    latest: list[OfBatch]


class Promotion(TypedDict):
    """When a version was promoted, and whether that was taken back."""

    at: str
    undone: bool


class HistoryLine(TypedDict):
    """What was done for a version at Mistral."""

    at: str
    message: str


class ModelDocument(ModelFacts):
    """Everything about a version: where it comes from, and what became of it. `labels`: by target."""

    training: OfTraining | None
    dataset: OfDataset | None
    dataset_fingerprint: str | None
    created_at: str
    labels: dict[str, list[str]]
    thresholds: dict[str, Any] | None
    temperatures: dict[str, float]
    calibration: dict[str, Any] | None
    evaluations: list[OfEvaluation]
    batches: OfBatches
    promotions: list[Promotion]
    at_mistral: list[HistoryLine]


class RemovedAliasDocument(TypedDict):
    """An alias that was removed."""

    alias: str
    removed: bool


class ModelThresholdsDocument(TypedDict):
    """From which score on a version is believed, by target."""

    model: str
    thresholds: dict[str, Any]


class RegisteredModelDocument(TypedDict):
    """A version that stands for a classifier at Mistral."""

    model: str
    remote_model: str


class ChangedModelDocument(TypedDict):
    """A version after a change; `remote_wish`: the remote action that a worker will do at Mistral; `warnings`: such as
    that it is done when Redis is back."""

    model: str
    state: str
    promoted: bool
    note: str | None
    remote_wish: str | None
    warnings: list[str]
