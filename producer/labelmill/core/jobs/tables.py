"""The table of each kind of job."""

from __future__ import annotations

from typing import TypeVar

from labelmill.contracts.ids import Kind
from labelmill.contracts.states import BatchState, DatasetState, EvaluationState, State, TrainingState
from labelmill.core.database.tables import BatchRow, DatasetRow, EvaluationRow, TrainingRow

#: The table of any job.
AnyJobTable = type[DatasetRow] | type[TrainingRow] | type[BatchRow] | type[EvaluationRow]

#: The table of a job that is worked on under a lease of its own. A batch's chunks have leases instead.
JobTable = type[DatasetRow] | type[TrainingRow] | type[EvaluationRow]
Job = TypeVar("Job", DatasetRow, TrainingRow, EvaluationRow)

TABLE_OF: dict[Kind, AnyJobTable] = {
    Kind.DATASET: DatasetRow,
    Kind.TRAINING: TrainingRow,
    Kind.BATCH: BatchRow,
    Kind.EVALUATION: EvaluationRow,
}

_OF_STATES: dict[type[State], Kind] = {
    DatasetState: Kind.DATASET,
    TrainingState: Kind.TRAINING,
    BatchState: Kind.BATCH,
    EvaluationState: Kind.EVALUATION,
}


def table_of(state: State) -> AnyJobTable:
    """The table of the jobs that have such states."""
    return TABLE_OF[_OF_STATES[type(state)]]
