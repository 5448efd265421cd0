"""Answers on their way into `prediction_rows`, column by column: a Python object for each row would cost more than all
else that is done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from labelmill.contracts.bulk import bulk_insert, copy_binary

_COLUMNS = ("batch_no", "row", "target", "score", "scores", "labels", "label", "external_id")
_NULL = b"\xff\xff\xff\xff"  # PostgreSQL's binary COPY: a length of -1


@dataclass(frozen=True, slots=True)
class PredictionBlock:
    """Answers of one target to some rows; every sequence has one entry a row."""

    target: int  #: Its number in the model's schema.
    rows: NDArray[np.int64]
    external_ids: Sequence[str] | None  #: None: the row numbers.
    labels: Sequence[str | None]
    label_lists: Sequence[str | None]  #: JSON lists, of a multi-label target.
    best: NDArray[np.float32]
    scores: NDArray[np.float32]  #: (rows, labels), in label order.


def insert_predictions(connection: Connection, batch_no: int, block: PredictionBlock) -> None:
    """Write a block within the connection's transaction."""
    if connection.dialect.name == "postgresql":
        copy_binary(connection, "prediction_rows", _COLUMNS, _binary_rows(batch_no, block))
        return
    width, raw = block.scores.shape[1] * 4, block.scores.astype("<f4", copy=False).tobytes()
    rows = zip(
        repeat(batch_no), block.rows.tolist(), repeat(block.target), block.best.tolist(),
        [raw[at : at + width] for at in range(0, len(raw), width)],
        block.label_lists, block.labels, block.external_ids or repeat(None),
    )  # fmt: skip
    bulk_insert(connection, "prediction_rows", _COLUMNS, rows)


def _binary_rows(batch_no: int, block: PredictionBlock) -> bytes:
    """The rows as PostgreSQL's binary COPY wants them: all that is of fixed width by NumPy, the texts behind it."""
    count, labels = block.scores.shape
    fixed = np.empty(
        count,
        [("fields", ">i2"), ("l1", ">i4"), ("batch_no", ">i8"), ("l2", ">i4"), ("row", ">i8"), ("l3", ">i4"),
         ("target", ">i2"), ("l4", ">i4"), ("score", ">f4"), ("l5", ">i4"), ("scores", "<f4", (labels,))],
    )  # fmt: skip
    fixed["fields"], fixed["batch_no"], fixed["row"] = len(_COLUMNS), batch_no, block.rows
    fixed["target"], fixed["score"], fixed["scores"] = block.target, block.best, block.scores
    fixed["l1"], fixed["l2"], fixed["l3"], fixed["l4"], fixed["l5"] = 8, 8, 2, 4, 4 * labels
    raw, width = fixed.tobytes(), fixed.itemsize
    heads = [raw[at : at + width] for at in range(0, len(raw), width)]
    known = {pair: _field(pair[0]) + _field(pair[1]) for pair in set(zip(block.label_lists, block.labels, strict=True))}
    texts = map(known.__getitem__, zip(block.label_lists, block.labels, strict=True))
    ids = repeat(_NULL) if block.external_ids is None else map(_field, block.external_ids)
    return b"".join(chain.from_iterable(zip(heads, texts, ids)))  # noqa: B905 - `repeat` has no end


def _field(value: str | None) -> bytes:
    if value is None:
        return _NULL
    raw = value.encode()
    return len(raw).to_bytes(4, "big") + raw
