"""Evaluations in SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState, EvaluationState
from labelmill.core.database import reading, writing
from labelmill.core.database.analysis_codec import save_analysis
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    EvaluationRow,
    EventRow,
    ModelRow,
    RowErrorRow,
)
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.store.inner_batches import InnerBatch, open_inner_batch, read_inner_batch
from labelmill_worker.store.jobs import require_held
from labelmill_worker.store.transitions import move_job

BatchColumn = Literal["batch_id", "calibration_batch_id"]


def open_batch(
    engine: Engine, evaluation_id: str, token: str, column: BatchColumn, spec: ClassifySpec, mode: str
) -> InnerBatch:
    """The evaluation's batch: the one there is, or a new one. Raises LeaseLost."""
    with writing(engine) as connection:
        require_held(connection, EvaluationRow, evaluation_id, token)
        row = (
            connection.execute(select(EvaluationRow.__table__).where(EvaluationRow.id == evaluation_id))
            .mappings()
            .one()
        )
        batch_id = row[column] or open_inner_batch(
            connection,
            EvaluationRow,
            evaluation_id,
            token,
            model_no=row["model_no"],
            model_ref=row["model_ref"],
            spec=spec,
            mode=mode,
            column=column,
        )
    return read_inner_batch(engine, batch_id)


def read_model(engine: Engine, model_no: int) -> ModelRow:
    """The model version that is measured."""
    with reading(engine) as connection:
        return ModelRow(
            **connection.execute(select(ModelRow.__table__).where(ModelRow.no == model_no)).mappings().one()
        )


@dataclass(frozen=True)
class Calibrated:
    """A model version's temperatures, and the thresholds that are on their scale."""

    calibration: dict[str, Any] | None
    thresholds: dict[str, Any] | None


def complete(
    engine: Engine,
    job: EvaluationRow,
    token: str,
    *,
    metrics: dict[str, Any],
    summary: dict[str, Any],
    analysis: dict[str, Any],
    recalibrate: Callable[[Calibrated], Calibrated] | None,
) -> None:
    """running → completed, with everything that was found; `recalibrate` says what becomes of the model version.

    Raises LeaseLost.
    """
    with writing(engine) as connection:
        done = move_job(
            connection,
            job.id,
            EvaluationState.COMPLETED,
            old=EvaluationState.RUNNING,
            token=token,
            metrics=metrics,
            summary=summary,
        )
        if not done:
            raise LeaseLost(f"the lease on {job.id} was lost")
        save_analysis(connection, job.id, analysis)
        if recalibrate is not None:
            this = ModelRow.no == job.model_no
            columns = select(ModelRow.calibration, ModelRow.thresholds).where(this)
            # locked: a person may set thresholds at the same time
            found = recalibrate(Calibrated(*connection.execute(columns.with_for_update()).one()))
            values = {"calibration": found.calibration, "thresholds": found.thresholds}
            connection.execute(update(ModelRow).where(this).values(values))


# Handed to the driver as they are: a split may have a million rows.
_OWN = (
    "SELECT row, label, labels, scores FROM prediction_rows "
    "WHERE batch_no = %(of_batch)s AND row >= %(first)s AND row < %(end)s AND target = %(target)s"
)
_REPEATED = (
    "SELECT d.row, p.label, p.labels, p.scores FROM duplicate_rows d "
    "JOIN prediction_rows p ON p.batch_no = d.batch_no AND p.row = d.first_row "
    "WHERE d.batch_no = %(of_batch)s AND d.row >= %(first)s AND d.row < %(end)s AND p.target = %(target)s"
)

StoredAnswer = tuple[int, str | None, str | None, bytes]  #: row, label, labels as JSON, scores


def read_answers(connection: Connection, batch_no: int, first: int, end: int, target: int) -> list[StoredAnswer]:
    """The answers to the rows from `first` to before `end`, by row; those that repeat an earlier text too."""
    values = {"of_batch": batch_no, "first": first, "end": end, "target": target}
    dialect = dialect_of(connection)
    own = dialect.execute_raw(connection, _OWN, values)
    return sorted(own + dialect.execute_raw(connection, _REPEATED, values), key=lambda answer: answer[0])


@dataclass(frozen=True)
class SplitBatchFacts:
    """What a batch took. Counts are of rows, duplicates included."""

    rows: int
    failed: int
    duplicates: int
    requests: int
    tokens: int
    seconds: float | None
    failures: dict[str, int]  #: code → rows


def batch_facts(engine: Engine, batch_no: int) -> SplitBatchFacts:
    """Counts of an ended batch, and for how long it ran."""
    with reading(engine) as connection:
        batch = connection.execute(
            select(BatchRow.id, BatchRow.rows, BatchRow.duplicates, BatchRow.started_at, BatchRow.finished_at).where(
                BatchRow.no == batch_no
            )
        ).one()
        sums = [func.coalesce(func.sum(column), 0) for column in (ChunkRow.failed, ChunkRow.requests, ChunkRow.tokens)]
        counts = connection.execute(select(*sums).where(ChunkRow.batch_no == batch_no)).one()
        failures = connection.execute(
            select(RowErrorRow.code, func.count()).where(RowErrorRow.batch_no == batch_no).group_by(RowErrorRow.code)
        ).all()
        rested_s = _rested_s(connection, batch.id)
    took = None
    if batch.started_at and batch.finished_at:
        took = max(0.0, (batch.finished_at - batch.started_at).total_seconds() - rested_s)
    return SplitBatchFacts(
        batch.rows,
        int(counts[0]),
        batch.duplicates,
        int(counts[1]),
        int(counts[2]),
        took,
        {code: int(count) for code, count in failures},
    )


def _rested_s(connection: Connection, batch_id: str) -> float:
    """How long a batch that was retried had ended before it went on, in seconds."""
    events = select(EventRow.at, EventRow.state).where(EventRow.job_id == batch_id, EventRow.state.is_not(None))
    rested_s, ended_at = 0.0, None
    for at, state in connection.execute(events.order_by(EventRow.no)):
        if ended_at is not None and state == BatchState.RUNNING.value:
            rested_s += (at - ended_at).total_seconds()
        ended_at = at if state in ENDED else None
    return rested_s
