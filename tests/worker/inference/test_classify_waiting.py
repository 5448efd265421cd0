"""Limits and faults that pass: a chunk waits, releases what is left, and goes on."""

from __future__ import annotations

import time
from typing import Any

import pytest
from aiohttp import web
from mill import Mill, assert_all_labelled, assert_billed_once, open_mill, some_texts
from sqlalchemy import select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, first_times

from labelmill.core.database import reading
from labelmill.core.database.tables import ChunkRow
from labelmill_worker.mistral.http_errors import retry_after_s


def test_a_429_holds_back_for_as_long_as_it_asks(mill: Mill) -> None:
    arrivals: list[float] = []
    answers = iter([web.Response(status=429, headers={"Retry-After": "1"}, body=b"{}")])

    def once(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        arrivals.append(time.monotonic())
        return next(answers, None)

    mill.mistral.faults = [once]
    texts = some_texts(10)
    batch = mill.submit(texts)
    assert mill.run(batch)["state"] == "completed"
    first, second = arrivals
    assert second - first >= 1.0
    assert_billed_once(mill, texts)


def test_a_long_429_ends_the_task_and_hands_the_rest_back(mill: Mill) -> None:
    mill.mistral.faults = [first_times(1, lambda texts: web.Response(status=429, headers={"Retry-After": "100"}))]
    batch = mill.submit(some_texts(10))
    mill.fake.waiting.clear()
    mill.work(batch)
    (waiting,) = mill.fake.waiting
    assert 30 < waiting[1] <= 100
    with reading(mill.engine) as connection:
        state, attempts = connection.execute(select(ChunkRow.state, ChunkRow.attempts)).one()
    assert (state, attempts) == ("pending", 0)  # a limit is no fault: it never adds up to giving up
    assert mill.mistral.requests == 1


def test_a_429_for_one_model_holds_no_batch_of_another_model_back(mill: Mill) -> None:
    slow = "ft:classifier:slow"

    def refuse(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        return web.Response(status=429, headers={"Retry-After": "100"}) if body["model"] == slow else None

    mill.mistral.faults = [refuse]
    held, free = mill.submit(some_texts(10), model=slow), mill.submit(some_texts(40))
    mill.fake.waiting.clear()
    mill.work(held)
    mill.fake.waiting.clear()
    mill.work(free)
    assert mill.status(free)["state"] == "completed"
    mill.work(held)
    found = mill.status(held)
    assert found["state"] == "running"
    assert mill.mistral.refused_429 == 0, "of the stand-in's own limit"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 409])
def test_faults_that_pass_are_retried(mill: Mill, status: int) -> None:
    mill.mistral.faults = [first_times(3, lambda texts: web.Response(status=status))]
    texts = some_texts(40)
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert_all_labelled(mill, batch, texts)
    assert_billed_once(mill, texts)
    assert document["requests"] == 4 + 3


def test_an_outage_is_waited_for_longer_and_longer(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill_worker.inference.chunk_run.SLICE_S", 0.3)
    mill.mistral.faults = [lambda texts, body: web.Response(status=503)]
    batch = mill.submit(some_texts(40))
    for _ in range(4):
        mill.fake.waiting.clear()
        mill.work(batch)
        mill.delays.append(mill.fake.waiting[0][1])
    assert mill.delays == sorted(mill.delays)
    assert mill.delays[0] >= 2
    assert mill.delays[-1] >= 16
    assert mill.status(batch)["rows"]["pending"] == 40


def test_an_outage_that_does_not_end_fails_the_rows_with_its_reason(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmill_worker.inference.chunk_run.SLICE_S", 0.05)
    monkeypatch.setattr("labelmill_worker.inference.retry_policy.MAX_FRUITLESS_CLAIMS", 3)
    mill.mistral.faults = [lambda texts, body: web.Response(status=503)]
    batch = mill.submit(some_texts(20))
    document = mill.run(batch)
    assert (document["state"], document["rows"]["failed"]) == ("completed", 20)
    assert set(mill.errors(batch).values()) == {"remote_unavailable"}


def test_a_slice_ends_and_the_rest_is_handed_back(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill_worker.inference.chunk_run.SLICE_S", 0.3)
    mill.mistral.latency_s = 0.1
    texts = some_texts(400)
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert len(mill.delays) > 1
    assert set(mill.delays) == {0.0}
    assert document["state"] == "completed"
    assert_billed_once(mill, texts)
    assert document["requests"] == 40


def test_a_429_with_redis_gone_puts_the_chunk_off(engine: Engine, mistral: StrictMistral) -> None:
    mill, runtime = open_mill(engine, mistral, "redis://127.0.0.1:1/0")
    mistral.faults = [first_times(1, lambda texts: web.Response(status=429))]
    batch = mill.submit(some_texts(10))
    mill.fake.waiting.clear()
    mill.work(batch)
    with reading(engine) as connection:
        assert connection.scalar(select(ChunkRow.state)) == "pending"
    assert mill.free_slots() == 8
    runtime.close()


def test_a_retry_after_without_end_does_not_hold_the_fleet_forever() -> None:
    assert retry_after_s("inf") is not None
    assert max(retry_after_s(value) or 0.0 for value in ("inf", "1e12", "nan", "-3")) <= 3600
