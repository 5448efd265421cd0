"""The progress of a job: its phase, and the rows done and in all, from the batches that do its work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.documents.parts import Progress
from labelmill.contracts.ids import Kind
from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.job_kinds import ENDED, KINDS
from labelmill.contracts.states import BatchState, DatasetState, EvaluationState, State, TrainingState
from labelmill.core.database.tables import BatchRow, ChunkRow

_IDS_AT_ONCE = 500  #: Ids in one statement.


@dataclass(frozen=True)
class BatchSums:
    """The sums over the chunks of a batch: of rows, duplicates included, and of requests and tokens."""

    state: str
    rows: int = 0
    labelled: int = 0
    abstained: int = 0
    failed: int = 0
    requests: int = 0
    tokens: int = 0
    cached: int = 0

    @property
    def done(self) -> int:
        """Rows that have an answer or an error."""
        return self.labelled + self.abstained + self.failed

    @property
    def has_ended(self) -> bool:
        """Whether workers do nothing more for it."""
        return self.state in ENDED


def batches_of(kind: Kind, row: RowMapping) -> list[str]:
    """The batches that do a job's work: itself, or those it runs."""
    names = ("id",) if kind is Kind.BATCH else KINDS[kind].inner_batches
    return [row[name] for name in names if row[name]]


def sums_of_batches(connection: Connection, ids: Sequence[str]) -> dict[str, BatchSums]:
    """The sums of each batch that exists."""
    names = ("rows", "labelled", "abstained", "failed", "requests", "tokens", "cached")
    sums = [func.coalesce(func.sum(getattr(ChunkRow, name)), 0) for name in names]
    sums_by_id: dict[str, BatchSums] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        statement = (
            select(BatchRow.id, BatchRow.state, *sums)
            .join(ChunkRow, ChunkRow.batch_no == BatchRow.no, isouter=True)
            .where(BatchRow.id.in_(ids[start : start + _IDS_AT_ONCE]))
            .group_by(BatchRow.id, BatchRow.state)
        )
        for job_id, state, *counts in connection.execute(statement):
            sums_by_id[job_id] = BatchSums(state, *map(int, counts))
    return sums_by_id


#: The state in which the phase of a job differs from its state.
_AT_WORK: dict[Kind, State] = {Kind.TRAINING: TrainingState.RUNNING, Kind.EVALUATION: EvaluationState.RUNNING}


def progress_of(kind: Kind, row: RowMapping, sums: Mapping[str, BatchSums]) -> Progress | None:
    """`{"phase", "done", "total"}`, the latter two rows or null. A job that has ended keeps the number of rows done, if
    that is known, and is None otherwise. `sums`: of `batches_of` the job."""
    batches = [sums[job_id] for job_id in batches_of(kind, row) if job_id in sums]
    if kind is Kind.BATCH:
        (batch,) = batches
        if batch.state == BatchState.SUBMITTING.value:
            return _progress(batch.state, batch.rows)
        return _progress(batch.state, batch.done, batch.rows)
    state = str(row["state"])
    if kind is Kind.DATASET:
        rows = (row["report"] or {}).get("rows_read")
        if state not in ENDED:
            return _progress(state, rows)
        return None if rows is None else _progress(state, rows, rows if state == DatasetState.READY.value else None)
    if state in ENDED:
        return _of_batches(state, batches) if kind is Kind.EVALUATION and batches else None
    if kind not in _AT_WORK or state != _AT_WORK[kind].value:
        return _progress(state.replace("_", " "))
    working = [inner for inner in batches if not inner.has_ended]
    if any(inner.state == BatchState.SUBMITTING.value for inner in working):
        return _progress("submitting", sum(inner.rows for inner in working))
    if working:
        return _of_batches(_phase_of_batches(kind, row), batches)
    if kind is Kind.EVALUATION:
        return _progress("measuring" if batches else state)
    if (phase := (row["details"] or {}).get("phase")) is not None:  # what a worker does between or after its batches
        return _progress(phase)
    if batches:  # until a worker notices that it has ended
        return _of_batches(_phase_of_batches(kind, row), batches)
    if row["method"] == "factory":
        checkpoints = row["checkpoints"] or []
        return _progress("training at Mistral", checkpoints[-1]["step"] if checkpoints else None)
    return _progress(state)


def _phase_of_batches(kind: Kind, row: RowMapping) -> str:
    """What the batches of an evaluation, or the batch of a training, are for."""
    if kind is Kind.EVALUATION or row["method"] == "factory":
        return "classifying"
    named = (row["details"] or {}).get("batches", {})
    name = next((name for name, batch in named.items() if batch == row["batch_id"]), VECTORS)
    return "embedding" if name == VECTORS else f"trying {name}"


def _of_batches(phase: str, batches: Iterable[BatchSums]) -> Progress:
    batches = list(batches)
    return _progress(phase, sum(batch.done for batch in batches), sum(batch.rows for batch in batches))


def _progress(phase: str, done: int | None = None, total: int | None = None) -> Progress:
    return {"phase": phase, "done": done, "total": total}
