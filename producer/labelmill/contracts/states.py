"""The states of every job and of a chunk, and the one table of moves between them.

Every write of a state is `UPDATE … WHERE state = :expected`; `moves_to` says which moves exist, so a move that is not
in the table cannot be written by accident.
"""

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

_D, _T, _B, _E, _C = DatasetState, TrainingState, BatchState, EvaluationState, ChunkState

# A table for each kind: members of two StrEnums with one value are the same key of a dictionary.
TRANSITIONS: dict[type[StrEnum], dict[State, frozenset[State]]] = {
    DatasetState: {
        _D.QUEUED: frozenset({_D.PREPARING, _D.FAILED}),
        _D.PREPARING: frozenset({_D.READY, _D.FAILED}),
        _D.READY: frozenset(),
        _D.FAILED: frozenset(),
    },
    TrainingState: {
        _T.QUEUED: frozenset({_T.UPLOADING, _T.VALIDATING, _T.FAILED, _T.CANCELLED}),
        _T.UPLOADING: frozenset({_T.VALIDATING, _T.FAILED, _T.CANCELLED}),
        _T.VALIDATING: frozenset({_T.AWAITING_APPROVAL, _T.RUNNING, _T.FAILED, _T.CANCELLED}),
        _T.AWAITING_APPROVAL: frozenset({_T.RUNNING, _T.FAILED, _T.CANCELLED}),
        _T.RUNNING: frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELLED}),
        _T.SUCCEEDED: frozenset(),
        _T.FAILED: frozenset(),
        _T.CANCELLED: frozenset(),
    },
    BatchState: {
        _B.SUBMITTING: frozenset({_B.QUEUED, _B.FAILED, _B.CANCELLED}),
        _B.QUEUED: frozenset({_B.RUNNING, _B.FAILED, _B.CANCELLED}),
        _B.RUNNING: frozenset({_B.COMPLETED, _B.FAILED, _B.CANCELLED, _B.PAUSED}),
        _B.COMPLETED: frozenset({_B.RUNNING}),
        _B.FAILED: frozenset({_B.RUNNING}),
        _B.PAUSED: frozenset({_B.RUNNING, _B.CANCELLED}),
        _B.CANCELLED: frozenset(),
    },
    EvaluationState: {
        _E.QUEUED: frozenset({_E.RUNNING, _E.FAILED, _E.CANCELLED}),
        _E.RUNNING: frozenset({_E.COMPLETED, _E.FAILED, _E.CANCELLED}),
        _E.COMPLETED: frozenset(),
        _E.FAILED: frozenset(),
        _E.CANCELLED: frozenset(),
    },
    ChunkState: {
        _C.PENDING: frozenset({_C.CLAIMED}),
        _C.CLAIMED: frozenset({_C.DONE, _C.FAILED, _C.PENDING}),
        _C.DONE: frozenset({_C.PENDING}),  # by retry of its failed rows
        _C.FAILED: frozenset({_C.PENDING}),
    },
}

ENDED: frozenset[State] = frozenset(
    {
        _D.READY,
        _D.FAILED,
        _T.SUCCEEDED,
        _T.FAILED,
        _T.CANCELLED,
        _B.COMPLETED,
        _B.FAILED,
        _B.CANCELLED,
        _B.PAUSED,
        _E.COMPLETED,
        _E.FAILED,
        _E.CANCELLED,
    }
)
"""States in which nothing more happens by itself."""


def open_states(kind: type[State]) -> list[str]:
    """The states of a kind of job in which it may still be worked on, as SQL has them."""
    return [state.value for state in kind if state not in ENDED]


def moves_to(old: State, new: State) -> bool:
    """Whether a job or chunk may go from `old` to `new`."""
    return type(old) is type(new) and new in TRANSITIONS[type(old)][old]
