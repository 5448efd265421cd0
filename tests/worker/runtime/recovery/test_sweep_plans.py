"""Every statement of a sweep at 100,000 chunks: an index leads to the few rows that matter, on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from sqlalchemy import event, insert, text, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.ids import Kind, new_id
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, LockRow, ModelRow
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.recovery.sweep import sweep_if_due
from labelmill_worker.store.chunks import complete_batch
from labelmill_worker.store.fairness import most_deserving_chunk

CHUNKS = 100_000
JOBS = 1_000

_MANY_CHUNKS = """
INSERT INTO chunks (batch_no, number, state, first_row, rows, texts, labelled)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})
SELECT {batch}, i, '{state}', i * 100, 100, 100, 100 FROM n
"""
_MANY_JOBS = """
INSERT INTO {table} ({columns})
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) SELECT {values} FROM n
"""


@pytest.fixture
def resources(engine: Engine, redis_url: str, tmp_path: Path) -> ProcessResources:
    settings = Settings(broker_url=redis_url, data_dir=str(tmp_path), sweep_s=0.001)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="factory"))
        _finished_jobs(connection)
    return ProcessResources(settings, engine, MessageSender.connect(settings))


def _finished_jobs(connection: Connection) -> None:
    """A thousand of each kind, as a system has after months."""
    for table, columns, values in (
        ("datasets", "id, state, name, version, spec", "'prep_' || i, 'ready', 'd' || i, 1, '{}'"),
        (
            "trainings",
            "id, state, name, method, dataset_id, options",
            "'t' || i, 'succeeded', 'm', 'factory', 'd', '{}'",
        ),
        (
            "evaluations",
            "id, state, model_no, model_ref, dataset_id, dataset_ref, split",
            "'e' || i, 'completed', 1, 'm', 'd', 'd@1', 'test'",
        ),
        ("models", "no, name, version, method", "i + 2, 'm' || i, 1, 'factory'"),
        (
            "batches",
            "no, id, state, model_no, model_ref, mode, priority, options, rows, duplicates",
            "i + 2, 'b' || i, 'completed', 1, 'm', 'realtime', 'normal', '{}', 0, 0",
        ),
    ):
        made = ", ".join([values, *(["CURRENT_TIMESTAMP"] if table != "chunks" else [])])
        connection.execute(
            text(
                _MANY_JOBS.format(table=table, columns=f"{columns}, created_at", count=JOBS, values=made).replace(
                    ":", "\\:"
                )
            )
        )


def _batch(connection: Connection, state: str) -> int:
    values = {"no": 5_000, "id": new_id(Kind.BATCH), "state": state, "model_no": 1, "model_ref": "m", "options": {}}
    return int(connection.execute(insert(BatchRow).values(values).returning(BatchRow.no)).scalar_one())


def _chunks(connection: Connection, batch: int, state: str, count: int = CHUNKS) -> None:
    connection.execute(text(_MANY_CHUNKS.format(batch=batch, state=state, count=count)))


def _statements_of_a_sweep(resources: ProcessResources) -> list[tuple[str, object]]:
    if resources.engine.dialect.name == "postgresql":
        with resources.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    with writing(resources.engine) as connection:
        connection.execute(update(LockRow).values(lease_until=0.0))
    return _statements_of(
        resources.engine, lambda: sweep_if_due(resources.engine, resources.sender, resources.settings)
    )


def _statements_of(engine: Engine, act: Callable[[], None]) -> list[tuple[str, object]]:
    asked: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, values: object, _x: object, _many: object) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    act()
    event.remove(engine, "before_cursor_execute", note)
    return [one for one in asked if one[0].startswith(("SELECT", "UPDATE", "DELETE"))]


def _plans(engine: Engine, asked: list[tuple[str, object]]) -> dict[str, str]:
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    found = {}
    with reading(engine) as connection:
        for statement, values in asked:
            rows = connection.exec_driver_sql(explain + statement, values).all()  # type: ignore[arg-type]
            found[statement] = "\n".join(str(row[-1]) for row in rows)
    return found


_SCAN = re.compile(r"SCAN (chunks|batches|datasets|trainings|evaluations|models|events)\b")
_ALL_OF_A_BATCH = re.compile(r"SEARCH chunks USING (?!(COVERING )?INDEX ix_chunks_open)[\w ]+\(batch_no=\?\)")
_COST = re.compile(r"cost=\d+\.\d+\.\.(\d+)")
_DEAR = 1_000  #: In PostgreSQL's units; to read all chunks costs 3,100.


def _wide(plans: dict[str, str]) -> list[str]:
    """Statements that read a whole table, or all chunks of a batch."""
    return [
        f"{statement}\n{plan}"
        for statement, plan in plans.items()
        if _SCAN.search(plan) or _ALL_OF_A_BATCH.search(plan) or ((cost := _COST.search(plan)) and int(cost[1]) > _DEAR)
    ]


def test_a_quiet_system_is_swept_by_a_handful_of_indexed_reads(resources: ProcessResources) -> None:
    with writing(resources.engine) as connection:
        _chunks(connection, _batch(connection, "completed"), "done")
    _statements_of_a_sweep(resources)
    asked = _statements_of_a_sweep(resources)
    assert len(asked) < 16, [statement for statement, _ in asked]
    assert not [statement for statement, _ in asked if not statement.startswith("SELECT") and "locks" not in statement]
    assert not _wide(_plans(resources.engine, asked))


@pytest.mark.parametrize("state", ["done", "pending"])
def test_a_batch_of_a_hundred_thousand_chunks_is_swept_by_index(resources: ProcessResources, state: str) -> None:
    with writing(resources.engine) as connection:
        batch = _batch(connection, "running")
        _chunks(connection, batch, state)
        for first, values in (
            (0, {"state": "claimed", "lease_token": "dead", "lease_until": 1.0}),  # its worker died
            (10, {"state": "claimed", "lease_token": "alive", "lease_until": db_now() + 60}),
            (20, {"state": "pending", "sent_at": 1.0}),  # its message was lost
        ):
            mine = (ChunkRow.batch_no == batch) & ChunkRow.number.between(first, first + 9)
            connection.execute(update(ChunkRow).where(mine).values(values))
    asked = _statements_of_a_sweep(resources)
    assert {"SELECT", "UPDATE"} == {statement.split()[0] for statement, _ in asked}
    assert not _wide(_plans(resources.engine, asked))
    with reading(resources.engine) as connection:
        claimed = connection.scalar(text("SELECT count(*) FROM chunks WHERE lease_token = 'dead'"))
        sent = connection.scalar(text("SELECT count(*) FROM chunks WHERE sent_at > 1.0"))
    assert (claimed, sent) == (0, 20 if state == "done" else 22)


def test_a_claim_and_the_end_of_a_chunk_read_no_chunks_that_are_done(resources: ProcessResources) -> None:
    with writing(resources.engine) as connection:
        batch = _batch(connection, "running")
        _chunks(connection, batch, "done")
        last = (ChunkRow.batch_no == batch) & (ChunkRow.number >= CHUNKS - 5)
        connection.execute(update(ChunkRow).where(last).values(state="pending"))
        batch_id = connection.scalar(text("SELECT id FROM batches WHERE no = 5000"))

    def claim_and_look() -> None:
        assert most_deserving_chunk(resources.engine, batch_id, CHUNKS - 1) is not None
        assert not complete_batch(resources.engine, batch, batch_id)

    asked = _statements_of(resources.engine, claim_and_look)
    assert len(asked) == 3
    assert not _wide(_plans(resources.engine, asked))
