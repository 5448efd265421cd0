"""What came of a chunk and of a job stands in the log of the worker that ended it."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from aiohttp import web
from mill import Mill, some_texts
from sqlalchemy import update
from strict_mistral import KEY
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from labelmill.contracts.states import BatchState
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, ModelRow
from labelmill.core.money.prices import PriceList
from labelmill_worker.store.ended_job_log import batch_totals
from labelmill_worker.store.transitions import move_job


def _lines(said: list[Any], event: str) -> list[dict[str, Any]]:
    return [dict(line) for line in said if line["event"] == event]


def test_chunks_and_a_batch_that_ended_say_what_they_came_to(mill: Mill) -> None:
    batch_id = mill.submit([*some_texts(50), *some_texts(10), ""], chunk_texts=20)
    with capture_logs([merge_contextvars]) as said:
        mill.run(batch_id)
    (ended,) = _lines(said, "job ended")
    assert ended["job_id"] == batch_id
    assert ended["state"] == "completed"
    counts = {name: ended[name] for name in ("rows", "labelled", "abstained", "failed", "requests")}
    assert counts == {"rows": 61, "labelled": 60, "abstained": 0, "failed": 1, "requests": mill.mistral.requests}
    chunks = _lines(said, "chunk done")
    assert sum(line["rows"] for line in chunks) == 61
    assert sum(line["requests"] for line in chunks) == mill.mistral.requests
    assert all(line["job_id"] == batch_id and line["took_s"] >= 0 for line in chunks)


def test_lines_name_the_chunk_that_was_claimed_whichever_the_message_named(mill: Mill) -> None:
    named, urgent = mill.submit(some_texts(10)), mill.submit(some_texts(30)[10:])
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).where(BatchRow.id == urgent).values(priority="high"))
    with capture_logs([merge_contextvars]) as said, structlog.contextvars.bound_contextvars(job_id=named, chunk=0):
        mill.work(named)
    (line,) = _lines(said, "chunk done")
    assert (line["job_id"], line["chunk"], line["rows"]) == (urgent, 0, 20)


def test_a_batch_that_was_stopped_says_why(mill: Mill) -> None:
    mill.mistral.faults.append(lambda texts, body: web.Response(status=401, body=b"{}"))
    batch_id = mill.submit(some_texts(20))
    with capture_logs() as said:
        mill.run(batch_id)
    (ended,) = _lines(said, "job ended")
    assert (ended["job_id"], ended["state"], ended["labelled"]) == (batch_id, "failed", 0)
    assert "key" in ended["error"]
    assert KEY not in str(said)


def test_tokens_have_a_cost_where_the_price_is_known(mill: Mill) -> None:
    batch_id = mill.submit(some_texts(20))
    mill.run(batch_id)
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(tokens=3_000_000))
        connection.execute(update(ModelRow).values(remote_model="mistral-embed", method="embedding"))
    with reading(mill.engine) as connection:
        totals = batch_totals(connection, batch_id, PriceList({"mistral-embed": (0.1, 0.0)}))
    assert totals["tokens"] == 3_000_000
    assert totals["cost"] == {"amount": 0.3, "currency": "USD"}


def test_a_job_whose_end_was_rolled_back_is_not_logged(mill: Mill) -> None:
    batch_id = mill.submit(some_texts(5))

    def fail_and_break() -> None:
        with writing(mill.engine) as connection:
            assert move_job(connection, batch_id, BatchState.FAILED)
            raise RuntimeError

    with capture_logs() as said, pytest.raises(RuntimeError):
        fail_and_break()
    assert _lines(said, "job ended") == []
    with capture_logs() as said, writing(mill.engine) as connection:
        assert move_job(connection, batch_id, BatchState.FAILED)
        assert _lines(said, "job ended") == []
    (ended,) = _lines(said, "job ended")
    assert (ended["job_id"], ended["state"]) == (batch_id, "failed")
