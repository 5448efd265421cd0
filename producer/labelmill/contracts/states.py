"""The states of every kind of job and of a chunk. Transitions and ended states are in `job_kinds`."""

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
    VALIDATING = "validating"  #: The files are checked and the cost is compared with the limit.
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
    FAILED = "failed"  #: Stopped by a permanent fault.
    CANCELLED = "cancelled"  #: Stopped by a person; what was paid for is kept.
    PAUSED = "paused"  #: Reached its spending cap.


class EvaluationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    PENDING = "pending"  #: Runnable, unless it is deferred: no worker holds it.
    CLAIMED = "claimed"  #: A worker holds a lease on it.
    DONE = "done"  #: Every row of it is answered.
    FAILED = "failed"  #: It cannot be worked on at all (its input is unreadable).


class RemoteAction(StrEnum):
    """What a worker still has to do at Mistral for a fine-tuned model that a person archived, restored or deleted."""

    ARCHIVE = "archive"  #: Stops its storage fee.
    UNARCHIVE = "unarchive"
    DELETE = "delete"


class RemoteStep(StrEnum):
    """What is to be done next for a job of Mistral's Batch API (a remote batch), in this order."""

    PACKING = "packing"  #: Rows are chosen and their calls written to a file.
    UPLOADING = "uploading"  #: The file goes to Mistral; skipped where the calls go with the job itself.
    CREATING = "creating"  #: The job is made at Mistral.
    WAITING = "waiting"  #: Mistral works on it.
    READING = "reading"  #: Its results are recorded.
    CLEANING = "cleaning"  #: Its files are deleted at Mistral.
    DONE = "done"


class Stopping(StrEnum):
    """Why the remote batches of a batch are being stopped."""

    CANCEL = "cancel"  #: A person cancelled the batch: it is cancelled once their results are recorded.
    REALTIME = "realtime"  #: What they did not answer is sent in realtime.


class Mode(StrEnum):
    """How texts are sent."""

    REALTIME = "realtime"
    BATCH = "batch"  #: By Mistral's Batch API.


State = DatasetState | TrainingState | BatchState | EvaluationState | ChunkState
