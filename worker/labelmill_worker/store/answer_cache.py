"""Earlier answers of a model version, found by text: what `--cache` reuses.

Answers are not kept twice: the index says in which batch and row a text was answered. It is made when a batch first
asks for it, chunk by chunk, so that batches that never ask pay nothing. Temperatures are part of a text's digest: what
was answered at other ones is not found, so that the scores of a batch are all on one scale.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import BatchState, ChunkState
from labelmill.core.chunks.codec import decode_chunk
from labelmill.core.database import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import BatchRow, ChunkInputRow, ChunkRow, IndexedChunkRow

_OTHERS_INDEX_S = 0.05  #: Until chunks that other workers index are checked again.
_DIGEST_BYTES = 16

# Digests of a chunk's texts go to the database in one value, 16 bytes each: a parameter for each takes longer than
# finding them. In order everywhere: workers that index the same texts must not wait for each other crosswise.
_REMEMBER = """INSERT INTO answer_index (model_no, digest, batch_no, row)
SELECT %(model_no)s, substr(%(digests)s, CAST(row - %(first_row)s AS INTEGER) * 16 + 1, 16) AS digest, batch_no, row
FROM prediction_rows
WHERE batch_no = %(batch_no)s AND row >= %(first_row)s AND row < %(end_row)s AND target = 0
ORDER BY digest
ON CONFLICT DO NOTHING"""
_MARK = "INSERT INTO indexed_chunks (batch_no, number) VALUES (%(batch_no)s, %(number)s) ON CONFLICT DO NOTHING"
# One by one by the primary keys, whatever PostgreSQL estimates for tables without statistics: a subquery with a
# limit cannot be turned into a join. All that was found comes in one value.
_FIND_IN_ONE_VALUE = """SELECT string_agg(int4send(place) || answer.scores, '')
FROM generate_series(0, %(count)s - 1) AS place
CROSS JOIN LATERAL (
    SELECT batch_no, row FROM answer_index
    WHERE model_no = %(model_no)s AND digest = substr(%(digests)s, place * 16 + 1, 16) LIMIT 1
) AS known
CROSS JOIN LATERAL (
    SELECT scores FROM prediction_rows AS one
    WHERE one.batch_no = known.batch_no AND one.row = known.row AND one.target = %(target)s
        AND octet_length(one.scores) = %(width)s LIMIT 1
) AS answer"""
_FIND_IN_ROWS = """WITH RECURSIVE places(place) AS (
    VALUES (0) UNION ALL SELECT place + 1 FROM places WHERE place + 1 < %(count)s
)
SELECT place, answer.scores
FROM places CROSS JOIN answer_index AS known CROSS JOIN prediction_rows AS answer
WHERE known.model_no = %(model_no)s AND known.digest = substr(%(digests)s, place * 16 + 1, 16)
    AND answer.batch_no = known.batch_no AND answer.row = known.row AND answer.target = %(target)s
    AND length(answer.scores) = %(width)s"""


def index_earlier_answers(engine: Engine, model_no: int, *, exclude: int, until: float) -> bool:
    """Index the answered chunks of a model's batches that are not yet indexed. False: the time was up first.

    `exclude`: the batch that asks; its own texts are all different. `until`: of the monotonic clock. Workers share the
    chunks among them.
    """
    wanted = _unindexed(model_no, exclude)
    while True:
        with reading(engine) as connection:  # first: most often there is nothing to index, and no lock to wait for
            if not connection.scalar(select(exists().where(wanted))):
                return True
        if not _index_one(engine, model_no, wanted):
            time.sleep(_OTHERS_INDEX_S)
        if time.monotonic() >= until:
            return False


def _unindexed(model_no: int, exclude: int) -> ColumnElement[bool]:
    """Of chunks: with answers of the model's own, not yet indexed, and done or of a batch that was stopped. What the
    cache answered is in the index already; what a retry brings is indexed anew."""
    others = select(BatchRow.no).where(
        BatchRow.model_no == model_no, BatchRow.no != exclude, BatchRow.purging.is_(False)
    )
    stopped = others.where(BatchRow.state.in_([BatchState.FAILED.value, BatchState.CANCELLED.value]))
    return (
        ChunkRow.batch_no.in_(others)
        & ((ChunkRow.state == ChunkState.DONE.value) | ChunkRow.batch_no.in_(stopped))
        & (ChunkRow.cached < ChunkRow.labelled + ChunkRow.abstained)
        & ~exists().where(IndexedChunkRow.batch_no == ChunkRow.batch_no, IndexedChunkRow.number == ChunkRow.number)
    )


def _index_one(engine: Engine, model_no: int, wanted: ColumnElement[bool]) -> bool:
    """Index one chunk, if there is one that no other worker indexes."""
    free = (
        select(ChunkRow.batch_no, ChunkRow.number, ChunkRow.first_row, ChunkRow.rows)
        .where(wanted)
        .order_by(ChunkRow.batch_no, ChunkRow.number)
        .limit(1)
        .with_for_update(of=ChunkRow, skip_locked=True)
    )
    with writing(engine) as connection:
        dialect = dialect_of(connection)
        chunk = connection.execute(free).first()
        if chunk is None:
            return False
        data = connection.scalar(
            select(ChunkInputRow.data).where(
                ChunkInputRow.batch_no == chunk.batch_no, ChunkInputRow.number == chunk.number
            )
        )
        assert data is not None  # noqa: S101 - a chunk is written with its input
        try:
            texts = decode_chunk(data).texts
        except ValueError:
            texts = []  # the input is gone: what was answered is unknown
        if texts:
            options = connection.scalar(select(BatchRow.options).where(BatchRow.no == chunk.batch_no)) or {}
            values = {
                "model_no": model_no,
                "batch_no": chunk.batch_no,
                "digests": b"".join(_digests(texts, options.get("temperatures"))),
                "first_row": chunk.first_row,
                "end_row": chunk.first_row + chunk.rows,
            }
            dialect.execute_raw(connection, _REMEMBER, values)
        dialect.execute_raw(connection, _MARK, {"batch_no": chunk.batch_no, "number": chunk.number})
    return True


@dataclass(frozen=True, slots=True)
class EarlierAnswers:
    """What is known of some texts: `indices` among them, ascending, and for each target float32 (known, labels)."""

    indices: NDArray[np.int64]
    scores: Sequence[NDArray[np.float32]]


def earlier_answers(
    engine: Engine,
    model_no: int,
    schema: LabelSchema,
    texts: Sequence[str],
    temperatures: Mapping[str, float] | None = None,
) -> EarlierAnswers:
    """What the model has answered before to those texts at those temperatures, for all of its targets."""
    digests = _digests(texts, temperatures)
    order = np.array(sorted(range(len(digests)), key=digests.__getitem__), np.int64)  # neighbours share pages
    values = {"model_no": model_no, "count": len(digests), "digests": b"".join(sorted(digests))}
    with reading(engine) as connection:
        found_by_target = [
            _find(connection, values | {"target": number}, order, labels=len(target.labels))
            for number, target in enumerate(schema.targets)
        ]
    known = reduce(np.intersect1d, [indices for indices, _ in found_by_target])
    return EarlierAnswers(known, [scores[np.searchsorted(indices, known)] for indices, scores in found_by_target])


def _find(
    connection: Connection, values: dict[str, object], order: NDArray[np.int64], *, labels: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For one target: the indices of the texts that are known, ascending, and their scores."""
    dialect = dialect_of(connection)
    find = dialect.choose(sqlite=_FIND_IN_ROWS, postgres=_FIND_IN_ONE_VALUE)
    rows = dialect.execute_raw(connection, find, values | {"width": labels * 4})
    if dialect.aggregates_bytes:
        ((packed,),) = rows
        records = np.frombuffer(packed or b"", [("place", ">i4"), ("scores", "<f4", (labels,))])
        places, scores = records["place"], records["scores"]
    else:
        places = np.array([place for place, _ in rows], np.int64)
        scores = np.frombuffer(b"".join(raw for _, raw in rows), "<f4").reshape(len(rows), labels)
    indices = order[places]
    ascending = np.argsort(indices)
    return indices[ascending], scores[ascending].astype(np.float32)


def _digests(texts: Sequence[str], temperatures: Mapping[str, float] | None) -> list[bytes]:
    """Of each text, as it is answered at those temperatures. Without any it is the digest of the text alone."""
    scale = b""
    if temperatures:
        named = repr(sorted(temperatures.items())).encode()
        scale = hashlib.blake2b(named, digest_size=hashlib.blake2b.PERSON_SIZE).digest()
    return [hashlib.blake2b(content.encode(), digest_size=_DIGEST_BYTES, person=scale).digest() for content in texts]
