"""The states of every kind of job and of a chunk. Which moves there are between them, and which states are ended ones,
is in `job_kinds`."""

from __future__ import annotations

from enum import StrEnum


class DatasetState(StrEnum):
    QUEUED = "queued"  #: Accepted; no worker has begun.
    PREPARING = "preparing"  #: A worker reads and splits the source.
    READY = "ready"  #: Its files are written and counted.
    FAILED = "failed"  #: Ended with a reason in `error`.


class TrainingState(StrEnum):
    QUEUED = "queued"  #: Accepted; nothing was sent to Mistral.
    UPLOADING = "uploading"  #: Training files go to Mistral; skipped where none are needed.
    VALIDATING = "validating"  #: The files are checked and the cost is weighed.
    AWAITING_APPROVAL = "awaiting_approval"  #: Costs more than was allowed; `approve` lets it go on.
    RUNNING = "running"  #: It trains; money may be spent.
    SUCCEEDED = "succeeded"  #: A model version exists.
    FAILED = "failed"  #: Ended with Mistral's own reason.
    CANCELLED = "cancelled"  #: Stopped by a person.


class BatchState(StrEnum):
    SUBMITTING = "submitting"  #: The producer still writes chunks; nothing runs.
    QUEUED = "queued"  #: All chunks are written.
    RUNNING = "running"  #: At least one chunk was claimed.
    COMPLETED = "completed"  #: Every row has an answer or an error.
    FAILED = "failed"  #: Stopped by a fault that will not pass.
    CANCELLED = "cancelled"  #: Stopped by a person; what was paid for is kept.
    PAUSED = "paused"  #: Reached its spending cap.


class EvaluationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    PENDING = "pending"  #: Runnable, once its time has come: no worker holds it.
    CLAIMED = "claimed"  #: A worker holds a lease on it.
    DONE = "done"  #: Every row of it is answered.
    FAILED = "failed"  #: It cannot be worked on at all (its input is unreadable).


class RemoteWish(StrEnum):
    """What a worker owes to Mistral for a fine-tuned model that a person put away."""

    ARCHIVE = "archive"  #: Stops its storage fee.
    UNARCHIVE = "unarchive"
    DELETE = "delete"


State = DatasetState | TrainingState | BatchState | EvaluationState | ChunkState
