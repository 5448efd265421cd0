"""Vectors that several workers keep at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select
from sqlalchemy.engine import Engine

from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import connect, reading, writing
from labelmill.core.database.tables import BatchRow, VectorRow
from labelmill_worker.store.chunks import Claim, claim_chunk
from labelmill_worker.store.inner_models import embedding_model
from labelmill_worker.store.progress import ChunkProgress, Entry, record_entries

_FIRST, _LAST = bytes(16), b"\xff" * 16
_OTHER_WAITS_S = 1.0


def _batch(engine: Engine, model_no: int, name: str) -> list[Claim]:
    """Two claimed chunks of a batch of their own."""
    with writing(engine) as connection:
        values = {"id": name, "state": "submitting", "model_no": model_no, "model_ref": "m", "options": {}}
        number = connection.execute(insert(BatchRow).values(values).returning(BatchRow.no)).scalar_one()
    with BatchWriter(engine, number, name, sizes=ChunkSizes(1)) as writer:
        writer.add(["one", "two"])
        writer.finish()
    claims = [claim_chunk(engine, name, chunk, 60) for chunk in (0, 1)]
    return [claim for claim in claims if claim is not None]


@pytest.mark.postgres
def test_two_trainings_that_keep_the_same_texts_in_other_chunks_do_not_wait_for_each_other_for_ever(
    postgres_url: str,
) -> None:
    engine = connect(postgres_url)
    with writing(engine) as connection:
        model_no = embedding_model(connection, "mistral-embed")
    both_have_written = threading.Barrier(2)

    def meet(*_: Any) -> None:
        try:
            both_have_written.wait(_OTHER_WAITS_S)
        except threading.BrokenBarrierError:
            return  # the other one waits for this transaction to end, as it should

    def after_statement(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO vectors"):
            meet()

    def record(claims: list[Claim], digests: list[bytes]) -> None:
        entries = [
            Entry(claim, ChunkProgress(vectors=[(digest, b"vector")]), done=False)
            for claim, digest in zip(claims, digests, strict=True)
        ]
        with writing(engine) as connection:
            record_entries(connection, entries, 60)

    batches = [_batch(engine, model_no, name) for name in ("batch_one", "batch_two")]
    event.listen(engine, "after_cursor_execute", after_statement)
    with ThreadPoolExecutor(2) as two:
        orders = [[_FIRST, _LAST], [_LAST, _FIRST]]
        outcomes = [two.submit(record, claims, order) for claims, order in zip(batches, orders, strict=True)]
        for outcome in outcomes:
            outcome.result(timeout=30)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(VectorRow)) == 2
    engine.dispose()
