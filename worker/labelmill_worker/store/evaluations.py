"""Evaluations in SQL."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.database import reading, writing
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.contracts.tables import (
    BatchRow,
    ChunkInputRow,
    ChunkRow,
    DatasetRow,
    DuplicateRow,
    EvaluationRow,
    ModelRow,
    PredictionRow,
    utc_now,
)
from labelmill_worker.store.chunks import LeaseLostError
from labelmill_worker.store.jobs import add_event


@dataclass(frozen=True)
class InnerBatch:
    """The batch that classifies an evaluation's split."""

    no: int
    id: str
    state: str
    error: str | None
    error_code: str | None


def find_batch(engine: Engine, batch_id: str) -> InnerBatch:
    """The batch as it stands now."""
    with reading(engine) as connection:
        row = connection.execute(
            select(BatchRow.no, BatchRow.id, BatchRow.state, BatchRow.error, BatchRow.error_code)
            .where(BatchRow.id == batch_id)
        ).one()  # fmt: skip
    return InnerBatch(*row)


def open_batch(engine: Engine, evaluation_id: str, token: str, source: str) -> InnerBatch:
    """The evaluation's batch: the one there is, or a new one, tied to it in the same transaction.

    Raises LeaseLostError.
    """
    with writing(engine) as connection:
        found = connection.execute(
            select(EvaluationRow.batch_id, EvaluationRow.model_no, EvaluationRow.model_ref).where(
                EvaluationRow.id == evaluation_id, EvaluationRow.lease_token == token
            )
        ).first()
        if found is None:
            raise LeaseLostError
        batch_id = found.batch_id
        if batch_id is None:
            batch_id = new_id(Kind.BATCH)
            connection.execute(
                insert(BatchRow).values(
                    id=batch_id, state=BatchState.SUBMITTING.value, model_no=found.model_no, model_ref=found.model_ref,
                    mode="realtime", priority="normal", created_at=utc_now(),
                    options=ClassifySpec(source=source).model_dump(mode="json"),
                )
            )  # fmt: skip
            connection.execute(update(EvaluationRow).where(EvaluationRow.id == evaluation_id).values(batch_id=batch_id))
            add_event(connection, batch_id, f"for {evaluation_id}", state=BatchState.SUBMITTING.value)
    return find_batch(engine, batch_id)


def clear_submission(engine: Engine, batch_no: int) -> None:
    """Forget what an attempt that died had written of a batch that never opened."""
    with writing(engine) as connection:
        for table in (ChunkInputRow, DuplicateRow, ChunkRow):
            connection.execute(delete(table).where(table.batch_no == batch_no))


def split_path(engine: Engine, dataset_id: str, split: str) -> str | None:
    """Where a dataset's split lies."""
    with reading(engine) as connection:
        files = connection.scalar(select(DatasetRow.files).where(DatasetRow.id == dataset_id))
    return (files or {}).get(split)


def model_schema(engine: Engine, model_no: int) -> LabelSchema:
    """The label schema of a model; empty before a raw id's first answer."""
    with reading(engine) as connection:
        return LabelSchema.from_json(
            connection.scalar(select(ModelRow.label_schema).where(ModelRow.no == model_no)) or []
        )


Answer = tuple[str | None, list[str] | None]


def read_answers(engine: Engine, batch_no: int, rows: int) -> list[dict[int, Answer]]:
    """For each row the `(label, labels)` of each answered target number, duplicates filled in."""
    answers: list[dict[int, Answer]] = [{} for _ in range(rows)]
    with reading(engine) as connection:
        for row, target, label, labels in connection.execute(
            select(PredictionRow.row, PredictionRow.target, PredictionRow.label, PredictionRow.labels)
            .where(PredictionRow.batch_no == batch_no)
        ):  # fmt: skip
            answers[row][target] = (label, orjson.loads(labels) if labels is not None else None)
        for row, first_row in connection.execute(
            select(DuplicateRow.row, DuplicateRow.first_row).where(DuplicateRow.batch_no == batch_no)
        ):
            answers[row] = answers[first_row]
    return answers
