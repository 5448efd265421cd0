"""What the product needs of Mistral apart from answers: files, fine-tuning jobs, models. Adapters are a `ControlPlane`.

Every method raises errors of `labelmill.contracts.errors` and nothing else. None of those that make something
(`upload_file`, `create_job`) repeats itself: a caller that got no answer looks for what the lost call made
(`find_files`, `find_job`) before it makes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

# Statuses of a fine-tuning job. Mistral may add others: a status that is not known here is polled on.
QUEUED = "QUEUED"
STARTED = "STARTED"
VALIDATING = "VALIDATING"
VALIDATED = "VALIDATED"
RUNNING = "RUNNING"
SUCCESS = "SUCCESS"
FAILED_VALIDATION = "FAILED_VALIDATION"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
CANCELLATION_REQUESTED = "CANCELLATION_REQUESTED"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An uploaded file. `size_bytes` is Mistral's count."""

    id: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RemoteEvent:
    """A line of a job's history at Mistral. `created_at`: seconds since 1970."""

    name: str
    created_at: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteCheckpoint:
    """Losses at one training step, as far as Mistral reports them."""

    step: int
    train_loss: float | None = None
    valid_loss: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A fine-tuning job as Mistral shows it. Estimates are there from VALIDATED on; None: not reported."""

    id: str
    status: str
    created_at: int  #: Seconds since 1970.
    training_files: tuple[str, ...] = ()  #: File ids.
    fine_tuned_model: str | None = None
    message: str | None = None  #: Why it failed, in Mistral's words.
    cost: float | None = None
    cost_currency: str | None = None
    expected_duration_s: int | None = None
    train_tokens: int | None = None
    data_tokens: int | None = None
    events: tuple[RemoteEvent, ...] = ()  #: Only `get_job` fills these two.
    checkpoints: tuple[RemoteCheckpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderedTarget:
    """A question that a classifier learns to answer; `weight` is its share of the loss."""

    name: str
    labels: tuple[str, ...]
    multi: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What a classifier is trained from. It is created unstarted: creating costs nothing, starting does."""

    base_model: str
    training_files: tuple[str, ...]  #: Ids; a job is found again by the first.
    validation_files: tuple[str, ...] = ()
    targets: tuple[OrderedTarget, ...] = ()  #: None: Mistral takes targets and labels from the files.
    suffix: str | None = None  #: Becomes part of the model's id at Mistral.
    steps: int | None = None
    learning_rate: float | None = None
    wandb_project: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model the key may use. Its labels are not told: they are those of the dataset, or of its first answer."""

    id: str
    can_chat: bool = False
    is_archived: bool = False
    aliases: tuple[str, ...] = ()  #: Other names of the same model.
    deprecated_at: str | None = None  #: When Mistral retires it, ISO 8601.
    replacement: str | None = None  #: What Mistral names in its place.


class ControlPlane(Protocol):
    """Files, fine-tuning jobs and models at Mistral."""

    def upload_file(self, path: Path, name: str, expiry_hours: int) -> str:
        """Upload a JSONL file for fine-tuning under `name`, visible to the key's owner alone, deleted by Mistral after
        so many hours. Returns its id."""
        ...

    def find_files(self, name: str) -> list[RemoteFile]:
        """Uploaded files of exactly that name."""
        ...

    def find_files_of(self, training_id: str) -> list[RemoteFile]:
        """Uploaded files whose names begin with a training's id."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file; nothing happens when it is gone already."""
        ...

    def create_job(self, order: JobOrder) -> RemoteJob:
        """Create a classifier job with `auto_start=False`. Ask `find_job` first. Raises FactoryClosed."""
        ...

    def find_job(self, training_file_id: str) -> RemoteJob | None:
        """The job that trains on this file, the oldest if there are several. Raises FactoryClosed."""
        ...

    def check_factory(self) -> None:
        """Return if the account may see fine-tuning jobs. Raises FactoryClosed."""
        ...

    def get_job(self, job_id: str) -> RemoteJob:
        """The job with its events and checkpoints. Raises RemoteFailed when Mistral knows no such job."""
        ...

    def start_job(self, job_id: str) -> None:
        """Start a validated job: from here on it costs money."""
        ...

    def cancel_job(self, job_id: str) -> None:
        """Ask Mistral to stop a job."""
        ...

    def list_models(self) -> list[RemoteModel]:
        """Every model the key may use."""
        ...

    def get_model(self, model_id: str) -> RemoteModel:
        """One model. Raises RemoteFailed when Mistral knows no such model."""
        ...

    def archive_model(self, model_id: str) -> None:
        """Archive a fine-tuned model: it answers no more, and costs no storage. Raises RemoteFailed."""
        ...

    def unarchive_model(self, model_id: str) -> None:
        """Bring an archived model back. Raises RemoteFailed when Mistral knows no such model."""
        ...

    def delete_model(self, model_id: str) -> None:
        """Remove a fine-tuned model for good. Raises RemoteFailed when Mistral knows no such model."""
        ...

    def check_key(self) -> None:
        """Return if Mistral accepts the key. Raises CredentialsRefused."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
