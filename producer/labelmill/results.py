"""Reading a batch's results back: in input order with their texts, chunk by chunk, at constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.chunk_codec import decode_chunk
from labelmill.contracts.database import reading
from labelmill.contracts.errors import NotFound
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import ENDED, ChunkState
from labelmill.contracts.tables import BatchRow, ChunkInputRow, ChunkRow, ModelRow, PredictionRow, RowErrorRow

_ENDED = {state.value for state in ENDED}
_LOOK_S = 0.3
_AT_ONCE = 500  # repeated rows looked up in one statement; SQLite takes no more than some thousand parameters


class Only(StrEnum):
    """Which rows to read."""

    FAILED = "failed"
    ABSTAINED = "abstained"


def read_results(
    engine: Engine, batch_id: str, *, only: Only | None = None, follow: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows that have an answer or an error: `{"row", "id", "text", "predictions", "error"}`, in input order.

    With `follow`, waits for each chunk in turn until the batch ends. Raises NotFound at the first row.
    """
    number = 0
    while True:
        with reading(engine) as connection:
            batch = connection.execute(
                select(BatchRow.no, BatchRow.state, BatchRow.model_no).where(BatchRow.id == batch_id)
            ).first()
            if batch is None:
                raise NotFound(f"no batch has the id {batch_id!r}")
            chunk = connection.execute(
                select(ChunkRow.state, ChunkRow.first_row, ChunkRow.rows, ChunkInputRow.data)
                .join(ChunkInputRow, (ChunkInputRow.batch_no == ChunkRow.batch_no)
                      & (ChunkInputRow.number == ChunkRow.number))
                .where(ChunkRow.batch_no == batch.no, ChunkRow.number == number)
            ).first()  # fmt: skip
            ended = batch.state in _ENDED
            ready = ended or (chunk is not None and chunk.state == ChunkState.DONE.value)
            documents = _read_chunk(connection, batch, chunk) if chunk is not None and (ready or not follow) else []
        if chunk is None and (ended or not follow or batch.state != "submitting"):
            return
        if follow and not ready:
            time.sleep(_LOOK_S)
            continue
        for document in documents:
            if only is None or _is(document, only):
                yield document
        number += 1


def _is(document: dict[str, Any], only: Only) -> bool:
    if only is Only.FAILED:
        return document["error"] is not None
    return any(prediction.get("abstained") for prediction in document["predictions"].values())


def _read_chunk(connection: Connection, batch: Any, chunk: Any) -> list[dict[str, Any]]:
    schema_json = connection.scalar(select(ModelRow.label_schema).where(ModelRow.no == batch.model_no))
    schema = LabelSchema.from_json(schema_json or [])
    held = decode_chunk(chunk.data)
    first_row = chunk.first_row
    predictions: dict[int, dict[str, Any]] = {}
    errors: dict[int, dict[str, str]] = {}
    for conditions in _row_conditions(first_row, chunk.rows, sorted(set(held.repeats.values()))):
        _read_predictions(connection, batch.no, schema, conditions, predictions)
        for row, code, message in connection.execute(
            select(RowErrorRow.row, RowErrorRow.code, RowErrorRow.message).where(
                RowErrorRow.batch_no == batch.no, conditions(RowErrorRow)
            )
        ):
            errors[row] = {"code": code, "message": message}
    documents = []
    for index, text in enumerate(held.texts):
        answered_by = held.repeats.get(index, first_row + index)
        found, error = predictions.get(answered_by), errors.get(answered_by)
        if found is None and error is None:
            continue
        row = first_row + index
        documents.append(
            {"row": row, "id": held.ids[index] if held.ids else str(row), "text": text, "predictions": found or {},
             "error": error}
        )  # fmt: skip
    return documents


def _row_conditions(first_row: int, rows: int, elsewhere: Sequence[int]) -> Iterator[Any]:
    """Conditions on the row number that cover the chunk's own rows, then the earlier ones that its rows repeat."""
    yield lambda table: (table.row >= first_row) & (table.row < first_row + rows)
    outside = [row for row in elsewhere if row < first_row]
    for start in range(0, len(outside), _AT_ONCE):
        part = outside[start : start + _AT_ONCE]
        yield lambda table, part=part: table.row.in_(part)


def _read_predictions(
    connection: Connection, batch_no: int, schema: LabelSchema, conditions: Any, into: dict[int, dict[str, Any]]
) -> None:
    import numpy as np  # noqa: PLC0415 - a tenth of a second that commands which only look need not wait

    statement = select(
        PredictionRow.row, PredictionRow.target, PredictionRow.label, PredictionRow.labels, PredictionRow.score,
        PredictionRow.scores,
    ).where(PredictionRow.batch_no == batch_no, conditions(PredictionRow))  # fmt: skip
    found = connection.execute(statement).all()
    for number, target in enumerate(schema.targets):
        mine = [one for one in found if one[1] == number] if len(schema.targets) > 1 else found
        # all of a chunk's scores at once: a call of `round` for each would be over half of the time of reading
        raws = np.frombuffer(b"".join([one[5] for one in mine]), "<f4").astype(np.float64)
        rows = np.round(raws, 7).reshape(len(mine), len(target.labels)).tolist()
        for (row, _, label, labels, score, _), values in zip(mine, rows, strict=True):
            if label is None and labels is None:
                prediction: dict[str, Any] = {"label": None, "abstained": True}
            elif labels is not None:
                prediction = {"labels": orjson.loads(labels)}
            else:
                prediction = {"label": label}
            prediction["score"] = round(score, 7)
            prediction["scores"] = dict(zip(target.labels, values, strict=True))
            into.setdefault(row, {})[target.name] = prediction
