"""The batches of trainings and evaluations: an attempt that was thought dead and wakes up writes nothing into them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.core.chunks.codec import decode_chunk
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkInputRow, EvaluationRow, ModelRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.store.inner_batches import fill_inner_batch
from labelmill_worker.store.jobs import require_held

TEXTS = [[f"text {block}-{number}" for number in range(3_000)] for block in range(4)]
FLAT = [text for block in TEXTS for text in block]


@pytest.fixture
def batch(engine: Engine) -> int:
    """An evaluation held under the token `late`, and its batch that is not yet open."""
    with writing(engine) as connection:
        model = connection.execute(
            insert(ModelRow).values(name="m", version=1, method="factory").returning(ModelRow.no)
        ).scalar_one()
        connection.execute(
            insert(EvaluationRow).values(
                id="eval_0000000001",
                state="queued",
                model_no=model,
                model_ref="m",
                dataset_id="prep_0000000001",
                dataset_ref="d@1",
                split="test",
                batch_id="batch_0000000001",
                lease_token="late",
            )
        )
        return int(
            connection.execute(
                insert(BatchRow)
                .values(id="batch_0000000001", state="submitting", model_no=model, model_ref="m", options={})
                .returning(BatchRow.no)
            ).scalar_one()
        )


def fill(engine: Engine, batch: int, token: str, blocks: list[list[str]] | Iterator[list[str]]) -> None:
    guard = partial(require_held, table=EvaluationRow, job_id="eval_0000000001", token=token)
    fill_inner_batch(engine, batch, "batch_0000000001", blocks, guard)


def take_over(engine: Engine, batch: int) -> None:
    """Another attempt, by the rules: it takes the lease that ran out and submits everything."""
    with writing(engine) as connection:
        connection.execute(update(EvaluationRow).values(lease_token="next"))
    fill(engine, batch, "next", TEXTS)


def written(engine: Engine, batch: int) -> list[str]:
    with reading(engine) as connection:
        inputs = connection.scalars(
            select(ChunkInputRow.data).where(ChunkInputRow.batch_no == batch).order_by(ChunkInputRow.number)
        )
        return [text for data in inputs for text in decode_chunk(data).texts]


def test_an_attempt_that_slept_through_its_lease_clears_nothing(engine: Engine, batch: int) -> None:
    take_over(engine, batch)
    with pytest.raises(LeaseLost):
        fill(engine, batch, "late", TEXTS)
    assert written(engine, batch) == FLAT


def test_an_attempt_that_wakes_between_two_chunks_writes_no_more(engine: Engine, batch: int) -> None:
    def other_texts() -> Iterator[list[str]]:
        yield TEXTS[0]
        take_over(engine, batch)
        for block in TEXTS[1:]:
            yield [f"late {text}" for text in block]

    with pytest.raises(LeaseLost):
        fill(engine, batch, "late", other_texts())
    assert written(engine, batch) == FLAT


def test_nothing_is_written_into_a_batch_that_is_open(engine: Engine, batch: int) -> None:
    fill(engine, batch, "late", TEXTS)
    with BatchWriter(engine, batch, "batch_0000000001") as again:  # the same rows are nothing new
        again.add(FLAT)
        again.finish()
    with BatchWriter(engine, batch, "batch_0000000001") as longer:
        longer.add([*FLAT, *(f"one more {number}" for number in range(5_000))])
        with pytest.raises(InvalidInput, match="other rows from row"):
            longer.finish()
    assert written(engine, batch) == FLAT
    with reading(engine) as connection:
        assert connection.scalar(select(BatchRow.rows).where(BatchRow.no == batch)) == len(FLAT)
