"""Answers on their way into `prediction_rows`, column by column: a Python object for each row would cost more than all
else that is done with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from labelmill.core.database.binary_copy import NULL, pack_rows, text_field
from labelmill.core.database.dialects import dialect_of

_COLUMNS = ("batch_no", "row", "target", "score", "scores", "external_id", "labels", "label")


@dataclass(frozen=True, slots=True)
class PredictionBlock:
    """Answers of one target to some rows; every sequence has one entry a row."""

    target: int  #: Its number in the model's schema.
    rows: NDArray[np.int64]
    external_ids: Sequence[str] | None  #: None: the row numbers.
    labels: Sequence[str | None]
    label_lists: Sequence[str | None] | None  #: JSON lists, of a multi-label target.
    best: NDArray[np.float32]
    scores: NDArray[np.float32]  #: (rows, labels), in label order.


def insert_predictions(connection: Connection, blocks: Sequence[tuple[int, PredictionBlock]]) -> None:
    """Write blocks, each with its batch's number, within the connection's transaction: one statement for all."""
    if not blocks:
        return
    dialect = dialect_of(connection)
    if dialect.copies_binary:
        count = sum(len(block.rows) for _, block in blocks)
        dialect.copy_binary(connection, "prediction_rows", _COLUMNS, (_binary_rows(*one) for one in blocks), count)
    else:
        dialect.bulk_insert(connection, "prediction_rows", _COLUMNS, chain.from_iterable(_rows(*one) for one in blocks))


def _rows(batch_no: int, block: PredictionBlock) -> Iterable[tuple[object, ...]]:
    width, raw = block.scores.shape[1] * 4, block.scores.astype("<f4", copy=False).tobytes()
    return zip(
        repeat(batch_no),
        block.rows.tolist(),
        repeat(block.target),
        block.best.tolist(),
        [raw[at : at + width] for at in range(0, len(raw), width)],
        block.external_ids or repeat(None),
        block.label_lists or repeat(None),
        block.labels,
    )


def _binary_rows(batch_no: int, block: PredictionBlock) -> bytes:
    count, width = block.scores.shape
    numbers = [
        (">i8", batch_no),
        (">i8", block.rows),
        (">i2", block.target),
        (">f4", block.best),
        (("<f4", (width,)), block.scores),
    ]
    return pack_rows(count, numbers, block.external_ids, _decision_fields(block), fields=len(_COLUMNS))


def _decision_fields(block: PredictionBlock) -> Iterable[bytes]:
    """Both columns of labels in one piece; there are a few of them, however many the rows."""
    if block.label_lists is None:
        fields = {label: NULL + text_field(label) for label in set(block.labels)}
        return map(fields.__getitem__, block.labels)
    pairs = list(zip(block.label_lists, block.labels, strict=True))
    known = {pair: text_field(pair[0]) + text_field(pair[1]) for pair in set(pairs)}
    return map(known.__getitem__, pairs)
