"""Batches that a training runs through the bulk engine: texts to embed, or a validation split to classify."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchEnded, BatchWriter
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkInputRow,
    ChunkRow,
    DuplicateRow,
    ModelRow,
    PredictionRow,
    RowErrorRow,
)
from labelmill.core.jobs.tables import JobTable
from labelmill.core.jobs.transitions import create_job
from labelmill_worker.store.jobs import require_held, write_held


@dataclass(frozen=True)
class InnerBatch:
    """How the batch of a training or an evaluation stands. Counts are of rows, duplicates included."""

    no: int
    id: str
    state: str
    error: str | None
    error_code: str | None
    rows: int
    answered: int
    failed: int
    tokens: int

    @property
    def has_ended(self) -> bool:
        """Whether it goes no further by itself."""
        return self.state in ENDED


def read_inner_batch(engine: Engine, batch_id: str) -> InnerBatch:
    """The batch as it stands now."""
    with reading(engine) as connection:
        batch = connection.execute(
            select(BatchRow.no, BatchRow.id, BatchRow.state, BatchRow.error, BatchRow.error_code, BatchRow.rows).where(
                BatchRow.id == batch_id
            )
        ).one()
        done = ChunkRow.labelled + ChunkRow.abstained
        sums = [func.coalesce(func.sum(column), 0) for column in (done, ChunkRow.failed, ChunkRow.tokens)]
        counts = connection.execute(select(*sums).where(ChunkRow.batch_no == batch.no)).one()
    return InnerBatch(*batch, *map(int, counts))


def open_inner_batch(
    connection: Connection,
    table: JobTable,
    job_id: str,
    token: str,
    *,
    model_no: int,
    model_ref: str,
    spec: ClassifySpec,
    mode: str = "realtime",
    column: str = "batch_id",
) -> str:
    """Open a batch and tie it to the job that it is for, in one transaction. Returns its id. Raises LeaseLost."""
    require_held(connection, table, job_id, token)
    batch_id = new_id(Kind.BATCH)
    create_job(
        connection,
        batch_id,
        BatchState.SUBMITTING,
        f"for {job_id}",
        model_no=model_no,
        model_ref=model_ref,
        mode=mode,
        runs_in=mode,
        priority="normal",
        options=spec.model_dump(mode="json"),
        owner_id=job_id,
        max_cost=_max_cost(connection, table, job_id),
    )
    write_held(connection, table, job_id, token, **{column: batch_id})
    return batch_id


def _max_cost(connection: Connection, table: JobTable, job_id: str) -> float | None:
    """The cap of the job as a whole: its batches share it. A person who approved an estimate has lifted it."""
    row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().one()
    max_cost: float | None = None if row.get("approved") else row.get("max_cost")
    return max_cost


def fill_inner_batch(
    engine: Engine,
    batch_no: int,
    batch_id: str,
    blocks: Iterable[list[str]],
    guard: Callable[[Connection], None],
) -> None:
    """Write the texts of a batch that is not yet open, from the beginning, and open it. What an attempt that died had
    written is forgotten first. Does nothing to an open one. `guard` is called in every transaction: it raises when
    another attempt may be writing."""
    with writing(engine) as connection:
        guard(connection)
        of_batch = select(BatchRow.state, ModelRow.method).join(ModelRow).where(BatchRow.no == batch_no)
        state, method = connection.execute(of_batch).one()
        if state != BatchState.SUBMITTING.value:
            return
        for table in (ChunkInputRow, DuplicateRow, ChunkRow):
            connection.execute(delete(table).where(table.batch_no == batch_no))
    # a person may cancel meanwhile: the job then finds its batch cancelled
    writing_chunks = BatchWriter(engine, batch_no, batch_id, sizes=ChunkSizes.of(method), guard=guard)
    with contextlib.suppress(BatchEnded), writing_chunks as writer:
        for block in blocks:
            writer.add(block)
        writer.finish()


def read_requests(engine: Engine, batch_no: int) -> int:
    """How many requests were sent for the batch."""
    with reading(engine) as connection:
        return int(connection.scalar(select(func.sum(ChunkRow.requests)).where(ChunkRow.batch_no == batch_no)) or 0)


def first_row_error(engine: Engine, batch_no: int) -> str | None:
    """Why the first failed row failed."""
    with reading(engine) as connection:
        return connection.scalar(
            select(RowErrorRow.message).where(RowErrorRow.batch_no == batch_no).order_by(RowErrorRow.row).limit(1)
        )


def read_scores(engine: Engine, batch_no: int, target: int, rows: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """`(row, scores)` of a target's answers, duplicates filled in; failed rows are left out."""
    with reading(engine) as connection:
        found = {
            row: np.frombuffer(scores, "<f4")
            for row, scores in connection.execute(
                select(PredictionRow.row, PredictionRow.scores).where(
                    PredictionRow.batch_no == batch_no, PredictionRow.target == target, PredictionRow.row < rows
                )
            )
        }
        repeated = connection.execute(
            select(DuplicateRow.row, DuplicateRow.first_row).where(DuplicateRow.batch_no == batch_no)
        ).all()
    found.update({row: found[first_row] for row, first_row in repeated if first_row in found})
    yield from sorted(found.items())
