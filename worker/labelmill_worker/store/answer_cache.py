"""Earlier answers of a model version, found by text: what `--cache` reuses.

Answers are not kept twice: the index says in which batch and row a text was answered. It is made when a batch first
asks for it, chunk by chunk, so that batches that never ask pay nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, exists, select, text
from sqlalchemy.engine import Engine

from labelmill.contracts.chunk_codec import decode_chunk
from labelmill.contracts.database import reading, writing
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import ChunkState
from labelmill.contracts.tables import (
    AnswerIndexRow,
    BatchRow,
    ChunkInputRow,
    ChunkRow,
    IndexedChunkRow,
    PredictionRow,
)

_AT_ONCE = 500  # SQLite takes no more than some thousand parameters
_REMEMBER = {
    "postgresql": text(
        "INSERT INTO answer_index (model_no, digest, batch_no, row) "
        "SELECT :model_no, given.digest, :batch_no, given.row "
        "FROM unnest(CAST(:digests AS BYTEA[]), CAST(:rows AS BIGINT[])) AS given(digest, row) ON CONFLICT DO NOTHING"
    ),
    "sqlite": text(
        "INSERT INTO answer_index (model_no, digest, batch_no, row) VALUES (:model_no, :digest, :batch_no, :row) "
        "ON CONFLICT DO NOTHING"
    ),
}
_MARK = text("INSERT INTO indexed_chunks (batch_no, number) VALUES (:batch_no, :number) ON CONFLICT DO NOTHING")
_UNINDEXED = (
    select(ChunkRow.batch_no, ChunkRow.number, ChunkRow.first_row, ChunkRow.rows, ChunkInputRow.data)
    .join(BatchRow, BatchRow.no == ChunkRow.batch_no)
    .join(ChunkInputRow, (ChunkInputRow.batch_no == ChunkRow.batch_no) & (ChunkInputRow.number == ChunkRow.number))
    .where(ChunkRow.state == ChunkState.DONE.value)
    .where(~exists().where(IndexedChunkRow.batch_no == ChunkRow.batch_no, IndexedChunkRow.number == ChunkRow.number))
    .order_by(ChunkRow.batch_no, ChunkRow.number)
    .limit(1)
)
_OTHERS_INDEX_S = 0.05  #: Until another look at chunks that other workers index.


def index_earlier_answers(engine: Engine, model_no: int, *, until: float) -> bool:
    """Index the answered chunks of a model's batches that are not yet indexed. False: the time was up first.

    `until`: of the monotonic clock. Workers share the chunks among them.
    """
    unindexed = _UNINDEXED.where(BatchRow.model_no == model_no)
    while True:
        with reading(engine) as connection:  # first: most often there is nothing to index, and nobody to wait for
            if not connection.scalar(select(unindexed.exists())):
                return True
        if not _index_one(engine, model_no, unindexed):
            time.sleep(_OTHERS_INDEX_S)
        if time.monotonic() >= until:
            return False


def _index_one(engine: Engine, model_no: int, unindexed: Select[int, int, int, int, bytes]) -> bool:
    """Index one chunk, if there is one that no other worker is at."""
    with writing(engine) as connection:
        chunk = connection.execute(unindexed.with_for_update(of=ChunkRow, skip_locked=True)).first()
        if chunk is None:
            return False
        within = (PredictionRow.row >= chunk.first_row) & (PredictionRow.row < chunk.first_row + chunk.rows)
        rows = connection.scalars(
            select(PredictionRow.row).where(PredictionRow.batch_no == chunk.batch_no, within, PredictionRow.target == 0)
        ).all()
        texts = decode_chunk(chunk.data).texts
        # in one order everywhere: workers that index the same texts must not wait for each other crosswise
        found = sorted((_digest(texts[row - chunk.first_row]), row) for row in rows)
        same = {"model_no": model_no, "batch_no": chunk.batch_no}
        if connection.dialect.name == "postgresql":
            digests, numbers = [digest for digest, _ in found], [row for _, row in found]
            connection.execute(_REMEMBER["postgresql"], same | {"digests": digests, "rows": numbers})
        elif found:
            connection.execute(_REMEMBER["sqlite"], [same | {"digest": digest, "row": row} for digest, row in found])
        connection.execute(_MARK, {"batch_no": chunk.batch_no, "number": chunk.number})
    return True


def earlier_scores(
    engine: Engine, model_no: int, schema: LabelSchema, texts: Sequence[str]
) -> dict[int, list[NDArray[np.float32]]]:
    """The scores of those texts that the model has answered before: index → float32 (labels,) for each target."""
    index_of = {_digest(content): index for index, content in enumerate(texts)}
    places: dict[int, dict[int, int]] = defaultdict(dict)  # batch → row → index
    found: dict[int, dict[int, NDArray[np.float32]]] = defaultdict(dict)
    with reading(engine) as connection:
        for part in _parts(list(index_of)):
            where = select(AnswerIndexRow.digest, AnswerIndexRow.batch_no, AnswerIndexRow.row).where(
                AnswerIndexRow.model_no == model_no, AnswerIndexRow.digest.in_(part)
            )
            for digest, batch_no, row in connection.execute(where):
                places[batch_no][row] = index_of[bytes(digest)]
        for batch_no, indices in places.items():
            for part in _parts(list(indices)):
                answers = select(PredictionRow.row, PredictionRow.target, PredictionRow.scores).where(
                    PredictionRow.batch_no == batch_no, PredictionRow.row.in_(part)
                )
                for row, target, raw in connection.execute(answers):
                    found[indices[row]][target] = np.frombuffer(bytes(raw), np.float32)
    widths = [len(target.labels) for target in schema.targets]
    return {
        index: [scores[target] for target in range(len(widths))]
        for index, scores in found.items()
        if [len(scores.get(target, ())) for target in range(len(widths))] == widths
    }


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _digest(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=16).digest()
