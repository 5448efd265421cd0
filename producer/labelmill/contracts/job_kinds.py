"""The registry of job kinds: what a kind of job is, in one place. Everything else is derived from it.

A new kind of job touches these eight files, and a missing one is an error at import or in `tests/test_job_kinds.py`:

1. `contracts/states.py`: its states
2. here: its entry
3. `core/database/tables/<kind>s.py`: its table, a `JobRow` or `LeasedJobRow` with this `kind`
4. `core/database/migrations/versions/`: the migration that makes the table
5. `services/<kind>s.py`: checks what is asked, writes the job, sends its message
6. `contracts/documents/jobs.py`: the fields of its status document …
7. … and `services/jobs/documents.py`: where they come from
8. `worker/labelmill_worker/runtime/tasks/<task>.py`: the task of the same name, which calls the work

Ids, queues, the checks of messages, listing, leases, recovery and `purge` need no change. People who ask for such jobs
need a command in `cli/` and a method of `calls.py`, as for anything that services offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from labelmill.contracts.messages import (
    CLASSIFY,
    EVALUATE,
    PREPARE,
    QUEUES,
    SWEEP,
    TRAIN,
    ChunkMessage,
    JobMessage,
)
from labelmill.contracts.states import (
    BatchState,
    ChunkState,
    DatasetState,
    EvaluationState,
    State,
    TrainingState,
)

Transitions = Mapping[State, frozenset[State]]


class Kind(StrEnum):
    """What a job is; the value is what `status` prints as `kind`."""

    DATASET = "dataset"
    TRAINING = "training"
    BATCH = "batch"
    EVALUATION = "evaluation"


class Recovery(Enum):
    """How the sweep finds a job of this kind again when its message is lost or its worker dies."""

    BY_LEASE = "its own lease and `next_look_at`: an overdue job gets its message again"
    BY_CHUNKS = "the leases of its chunks: those of dead workers are runnable again, and get messages"


@dataclass(frozen=True)
class JobKind:
    """A kind of job. `states` begins with the state in which jobs are made."""

    kind: Kind
    id_prefix: str
    task: str  #: The Celery task that works on it.
    message: type[JobMessage]  #: The type of the task's message.
    queue: str  #: The queue of the message.
    states: type[State]
    transitions: Transitions
    ended: frozenset[State]  #: Workers do nothing more for the job.
    recovery: Recovery
    runnable: frozenset[State]  #: Workers work on the job in these; in the other open states it waits for a person.
    awaits_a_person: frozenset[State] = frozenset()  #: Open states in which a person has to act.
    cancelled: State | None = None  #: The state of a cancelled job; None: the kind cannot be cancelled.
    why_not_cancelled: str = ""
    retried: State | None = None  #: The state of a retried job; None: the kind cannot be retried.
    inner_batches: tuple[
        str, ...
    ] = ()  #: Columns with the ids of the batches that it runs for itself; they are cancelled when it ends.

    @property
    def all_states(self) -> list[State]:
        """Every state, the first one first."""
        return list(self.states)

    @property
    def open(self) -> frozenset[State]:
        """The states in which it may still be worked on."""
        return frozenset(self.all_states) - self.ended

    @property
    def retried_from(self) -> frozenset[State]:
        """The states in which it can be retried."""
        return frozenset(old for old in self.ended if self.retried in self.transitions[old])


_D, _T, _B, _E, _C = DatasetState, TrainingState, BatchState, EvaluationState, ChunkState

_ALL = (
    JobKind(
        kind=Kind.DATASET,
        id_prefix="prep_",
        task=PREPARE,
        message=JobMessage,
        queue="prepare",
        states=DatasetState,
        transitions={
            _D.QUEUED: frozenset({_D.PREPARING, _D.FAILED}),
            _D.PREPARING: frozenset({_D.READY, _D.FAILED}),
            _D.READY: frozenset(),
            _D.FAILED: frozenset(),
        },
        ended=frozenset({_D.READY, _D.FAILED}),
        recovery=Recovery.BY_LEASE,
        runnable=frozenset({_D.QUEUED, _D.PREPARING}),
        why_not_cancelled="it costs nothing and ends by itself",
    ),
    JobKind(
        kind=Kind.TRAINING,
        id_prefix="train_",
        task=TRAIN,
        message=JobMessage,
        queue="train",
        states=TrainingState,
        transitions={
            _T.QUEUED: frozenset({_T.UPLOADING, _T.VALIDATING, _T.FAILED, _T.CANCELLED}),
            _T.UPLOADING: frozenset({_T.VALIDATING, _T.FAILED, _T.CANCELLED}),
            _T.VALIDATING: frozenset({_T.AWAITING_APPROVAL, _T.RUNNING, _T.FAILED, _T.CANCELLED}),
            _T.AWAITING_APPROVAL: frozenset({_T.RUNNING, _T.FAILED, _T.CANCELLED}),
            _T.RUNNING: frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELLED}),
            _T.SUCCEEDED: frozenset(),
            _T.FAILED: frozenset({_T.RUNNING}),
            _T.CANCELLED: frozenset(),
        },
        ended=frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELLED}),
        recovery=Recovery.BY_LEASE,
        runnable=frozenset({_T.QUEUED, _T.UPLOADING, _T.VALIDATING, _T.RUNNING}),
        awaits_a_person=frozenset({_T.AWAITING_APPROVAL}),
        cancelled=_T.CANCELLED,
        retried=_T.RUNNING,
        inner_batches=("batch_id",),
    ),
    JobKind(
        kind=Kind.BATCH,
        id_prefix="batch_",
        task=CLASSIFY,
        message=ChunkMessage,
        queue="classify",
        states=BatchState,
        transitions={
            _B.SUBMITTING: frozenset({_B.QUEUED, _B.FAILED, _B.CANCELLED}),
            _B.QUEUED: frozenset({_B.RUNNING, _B.FAILED, _B.CANCELLED}),
            _B.RUNNING: frozenset({_B.COMPLETED, _B.FAILED, _B.CANCELLED, _B.PAUSED}),
            _B.COMPLETED: frozenset({_B.RUNNING}),
            _B.FAILED: frozenset({_B.RUNNING}),
            _B.PAUSED: frozenset({_B.RUNNING, _B.CANCELLED}),
            _B.CANCELLED: frozenset(),
        },
        ended=frozenset({_B.COMPLETED, _B.FAILED, _B.CANCELLED, _B.PAUSED}),
        recovery=Recovery.BY_CHUNKS,
        runnable=frozenset({_B.QUEUED, _B.RUNNING}),
        cancelled=_B.CANCELLED,
        retried=_B.RUNNING,
    ),
    JobKind(
        kind=Kind.EVALUATION,
        id_prefix="eval_",
        task=EVALUATE,
        message=JobMessage,
        queue="classify",
        states=EvaluationState,
        transitions={
            _E.QUEUED: frozenset({_E.RUNNING, _E.FAILED, _E.CANCELLED}),
            _E.RUNNING: frozenset({_E.COMPLETED, _E.FAILED, _E.CANCELLED}),
            _E.COMPLETED: frozenset(),
            _E.FAILED: frozenset({_E.RUNNING}),
            _E.CANCELLED: frozenset(),
        },
        ended=frozenset({_E.COMPLETED, _E.FAILED, _E.CANCELLED}),
        recovery=Recovery.BY_LEASE,
        runnable=frozenset({_E.QUEUED, _E.RUNNING}),
        cancelled=_E.CANCELLED,
        retried=_E.RUNNING,
        inner_batches=("batch_id", "calibration_batch_id"),
    ),
)

_CHUNK_TRANSITIONS: Transitions = {
    _C.PENDING: frozenset({_C.CLAIMED}),
    _C.CLAIMED: frozenset({_C.DONE, _C.FAILED, _C.PENDING}),
    _C.DONE: frozenset({_C.PENDING}),  # by retry of its failed rows
    _C.FAILED: frozenset({_C.PENDING}),
}


def check_kinds(kinds: Iterable[JobKind]) -> None:
    """Raise ValueError, in one sentence, for a kind that is missing or whose entry is incomplete or contradicts
    itself."""
    listed = list(kinds)
    missing = set(Kind) - {entry.kind for entry in listed}
    if missing:
        raise ValueError(f"no entry in contracts/job_kinds.py for the kind of job {', '.join(sorted(missing))}")
    for what, values in (
        ("kind", [entry.kind.value for entry in listed]),
        ("id prefix", [entry.id_prefix for entry in listed]),
        ("task", [entry.task for entry in listed]),
        ("set of states", [entry.states.__name__ for entry in listed]),
    ):
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"two kinds of job have the same {what}: {', '.join(sorted(twice))}")
    for entry in listed:
        if (fault := _fault_of(entry)) is not None:
            raise ValueError(f"the kind of job {entry.kind.value}: {fault}")


def _fault_of(entry: JobKind) -> str | None:
    """What is wrong with an entry alone."""
    states = entry.all_states
    if stateless := [state.value for state in states if state not in entry.transitions]:
        return f"no transitions are given for its state {', '.join(stateless)}"
    if entry.queue not in QUEUES:
        return f"no worker serves the queue {entry.queue}"
    if not entry.ended or not entry.ended < set(states):
        return "some of its states must be ended ones, and some not"
    if not entry.runnable or not entry.runnable | entry.awaits_a_person <= entry.open:
        return "workers can work on it, and persons act, only in open states"
    if stuck := [state.value for state in states if state in entry.open and not entry.transitions[state]]:
        return f"it stays for ever in the open state {', '.join(stuck)}"
    reached = {states[0]} | {new for following in entry.transitions.values() for new in following}
    if unreached := [state.value for state in states if state not in reached]:
        return f"no transition leads to its state {', '.join(unreached)}"
    if entry.cancelled is None and not entry.why_not_cancelled:
        return "say how it is cancelled, or why it cannot be"
    if entry.cancelled is not None and not all(entry.cancelled in entry.transitions[state] for state in entry.open):
        return f"an open job must be able to go to {entry.cancelled.value}"
    if entry.retried is not None and not entry.retried_from:
        return f"no ended state leads to {entry.retried.value}, where a retry goes on"
    return None


check_kinds(_ALL)

KINDS: dict[Kind, JobKind] = {kind_of_job.kind: kind_of_job for kind_of_job in _ALL}
DATASET, TRAINING, BATCH, EVALUATION = (KINDS[kind] for kind in Kind)

_OF_STATES: dict[type[State], JobKind] = {kind_of_job.states: kind_of_job for kind_of_job in _ALL}
_TRANSITIONS: dict[type[State], Transitions] = {kind_of_job.states: kind_of_job.transitions for kind_of_job in _ALL} | {
    ChunkState: _CHUNK_TRANSITIONS
}

#: States in which workers do nothing more for a job.
ENDED: frozenset[State] = frozenset().union(*(kind_of_job.ended for kind_of_job in _ALL))

#: States in which a caller that waits for a job stops waiting: it has ended, or a person has to act.
RESTING: frozenset[State] = ENDED.union(*(kind_of_job.awaits_a_person for kind_of_job in _ALL))

#: Task → the queue of its messages. `SWEEP` is not a job: it is accepted because older deployments still send it.
QUEUE_OF: dict[str, str] = {kind_of_job.task: kind_of_job.queue for kind_of_job in _ALL} | {SWEEP: "train"}

#: Task → the type of its arguments; None: it takes none.
CONTRACT_OF: dict[str, type[JobMessage] | None] = {kind_of_job.task: kind_of_job.message for kind_of_job in _ALL} | {
    SWEEP: None
}


def kind_of_state(state: State) -> JobKind:
    """The kind of job that a state belongs to."""
    return _OF_STATES[type(state)]


def moves_to(old: State, new: State) -> bool:
    """Whether a job or chunk may go from `old` to `new`."""
    return type(old) is type(new) and new in _TRANSITIONS[type(old)][old]


def states_before(new: State) -> frozenset[State]:
    """The states from which a job or chunk may go to `new`."""
    return frozenset(old for old, following in _TRANSITIONS[type(new)].items() if new in following)
