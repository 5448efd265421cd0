"""Why work does not move is told: in a job's status, and once a minute in the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from mill import Mill, open_mill, some_texts, until
from sqlalchemy import func, insert, select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral
from structlog.testing import capture_logs

from labelmill.contracts.errors import BrokerUnavailable, MalformedAnswer, RateLimited, RemoteUnavailable
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import BatchRow, DatasetRow, DelayRow, ModelRow, WorkerRow, utc_now
from labelmill.services.jobs.documents import status_document
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime
from labelmill_worker.process import delays as module
from labelmill_worker.process.delays import Delays
from labelmill_worker.store.workers import note_alive, unserved_queues

BATCH = "batch_00000000000000000000aaaa"
DOWN = RemoteUnavailable("Mistral cannot be reached: connection refused")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def batch(engine: Engine) -> str:
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(no=7, name="m", version=1, method="embedding", label_schema=[]))
        values = {"id": BATCH, "state": "running", "model_no": 7, "model_ref": "m", "options": {}}
        connection.execute(insert(BatchRow).values(**values))
    note_alive(engine, "one", "one@host", ["classify"])
    return BATCH


def waiting_for(engine: Engine, job_id: str) -> dict[str, Any] | None:
    with reading(engine) as connection:
        found: dict[str, Any] | None = status_document(connection, job_id)["waiting_for"]
    return found


def test_a_delay_is_told_once_it_lasts_and_ends_with_the_first_answer(engine: Engine, batch: str) -> None:
    clock = Clock()
    delays = Delays(engine, "one", clock=clock)
    delays.blocked("model:7", DOWN)
    delays.flush()
    assert waiting_for(engine, batch) is None
    clock.now += 5
    delays.blocked("model:7", DOWN)
    delays.flush()
    found = waiting_for(engine, batch)
    assert found is not None
    assert found["reason"] == "mistral_unreachable"
    assert found["message"].startswith("Mistral cannot be reached since ")
    assert found["message"].endswith(" UTC: connection refused")
    assert found["since"]
    delays.resumed("model:7")
    delays.flush()
    assert waiting_for(engine, batch) is None


def test_a_delay_of_one_worker_names_it_while_others_may_work(engine: Engine, batch: str) -> None:
    clock = Clock()
    delays = Delays(engine, "one", clock=clock)
    note_alive(engine, "two", "two@host", ["classify"])
    delays.blocked("model:7", DOWN)
    clock.now += 5
    delays.flush()
    found = waiting_for(engine, batch)
    assert found is not None
    assert found["message"].startswith("one@host: Mistral cannot be reached since ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoPermitInTime(42.0), "the rate limit has held requests back since "),
        (NoPermitInTime(42.0, "mistral-embed"), " UTC: requests to mistral-embed"),
        (RateLimited("Mistral asks for less"), "UTC: Mistral asks for less"),
        (BrokerUnavailable("Redis cannot be reached"), "Redis cannot be reached since "),
        (MalformedAnswer("no JSON"), None),
    ],
)
def test_each_fault_that_passes_is_told_in_its_own_words(
    engine: Engine, batch: str, error: Exception, words: str | None
) -> None:
    clock = Clock()
    delays = Delays(engine, "one", clock=clock)
    delays.blocked("model:7", error)
    clock.now += 5
    delays.flush()
    found = waiting_for(engine, batch)
    assert (found is None) == (words is None)
    assert found is None or str(words) in found["message"]


def test_the_log_has_a_line_a_minute_and_the_database_few_writes(engine: Engine, monkeypatch: Any) -> None:
    clock, written = Clock(), list[float]()
    monkeypatch.setattr(module, "note_delay", lambda *_, **__: written.append(clock.now))
    delays = Delays(engine, "one", clock=clock)
    with capture_logs() as logs:
        for _ in range(180):
            delays.blocked("model:7", DOWN)
            delays.flush()
            clock.now += 1
        delays.resumed("model:7")
        delays.flush()
    assert [line["event"] for line in logs] == ["work waits"] * 3 + ["work goes on"]
    assert 15 <= len(written) <= 18


def test_a_delay_that_is_not_met_any_more_is_forgotten(engine: Engine, batch: str) -> None:
    clock = Clock()
    delays = Delays(engine, "one", clock=clock)
    delays.blocked("model:7", DOWN)
    clock.now += 5
    delays.flush()
    clock.now += module.VALID_S + 1
    delays.flush()
    assert waiting_for(engine, batch) is None


@pytest.fixture
def mill(engine: Engine, redis_url: str) -> Iterator[Mill]:
    with StrictMistral() as mistral:
        made, runtime = open_mill(engine, mistral, redis_url)
        yield made
        runtime.close()


def test_a_batch_tells_that_mistral_is_out_of_order_until_it_answers(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmill_worker.inference.chunk_run.SLICE_S", 0.5)
    monkeypatch.setattr(module, "REPORTED_AFTER_S", 0.1)
    mill.mistral.faults = [lambda texts, body: web.Response(status=503)]
    batch = mill.submit(some_texts(40))
    message, _ = mill.fake.waiting[0]
    mill.work(message.job_id, message.chunk)
    until(lambda: (mill.status(batch)["waiting_for"] or {}).get("reason") == "mistral_unreachable")
    mill.mistral.faults = []
    assert mill.run(batch)["state"] == "completed"

    def rows() -> int:
        with reading(mill.engine) as connection:
            return connection.scalar(select(func.count()).select_from(DelayRow)) or 0

    until(lambda: rows() == 0)


def test_a_job_tells_that_no_worker_serves_its_queue_or_that_others_are_ahead(engine: Engine) -> None:
    with writing(engine) as connection:
        for job_id, state in (("prep_1", "preparing"), ("prep_2", "queued")):
            values = {"id": job_id, "state": state, "name": "d", "spec": {}, "created_at": utc_now()}
            connection.execute(insert(DatasetRow).values(**values))
    found = waiting_for(engine, "prep_2")
    assert found is not None
    assert (found["reason"], "no worker serves the queue prepare" in found["message"]) == ("no_worker", True)
    note_alive(engine, "one", "one@host", ["prepare"])
    assert waiting_for(engine, "prep_2") is None
    with writing(engine) as connection:
        held = {"lease_until": db_now() + 60, "lease_token": "x"}
        connection.execute(DatasetRow.__table__.update().where(DatasetRow.id == "prep_1").values(**held))
    found = waiting_for(engine, "prep_2")
    assert found is not None
    assert (found["reason"], "prep_1" in found["message"]) == ("other_work", True)
    assert waiting_for(engine, "prep_1") is None


def test_a_queue_with_work_and_without_a_worker_is_found_after_a_while(engine: Engine, batch: str) -> None:
    assert unserved_queues(engine) == []
    with writing(engine) as connection:
        connection.execute(WorkerRow.__table__.delete())
    assert unserved_queues(engine) == []  # it may be starting
    with writing(engine) as connection:
        long_ago = utc_now().replace(year=2024)
        connection.execute(BatchRow.__table__.update().values(created_at=long_ago))
    assert unserved_queues(engine) == ["classify"]
