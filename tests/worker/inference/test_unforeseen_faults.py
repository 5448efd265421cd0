"""Faults of ours in the middle of a batch: what is paid is kept, and the blame falls where the fault is."""

from __future__ import annotations

from typing import Any

import pytest
from asked import retry
from mill import MODEL, Mill, assert_all_labelled, assert_billed_once, open_mill, some_texts
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, EventRow
from labelmill_worker.inference import chunk_run as work
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.ports.inference import Call
from labelmill_worker.store.faults import MAX_FAULTS

_call, _strategy_for = ListClassification.call, work.strategy_for


class Flaw(Exception):
    """An unforeseen fault."""


def _flaw_at(monkeypatch: pytest.MonkeyPatch, word: str, times: int = 10**6) -> None:
    """The first requests with `word` in them meet a fault of ours."""
    left = times

    def call(self: ListClassification, request: Request, vector: Any) -> Call:
        nonlocal left
        if any(word in content for content in request.texts) and left > 0:
            left -= 1
            raise Flaw
        return _call(self, request, vector)

    monkeypatch.setattr(ListClassification, "call", call)


def _run(mill: Mill, batch: str) -> dict[str, Any]:
    """As a worker does: a task that ends with a fault is logged, and the next one comes."""
    while mill.fake.waiting:
        message, _ = mill.fake.waiting.popleft()
        try:
            mill.work(message.job_id, message.chunk)
        except Flaw:
            continue
    return mill.status(batch)


def test_a_fault_in_one_of_fifty_requests_under_way_costs_none_of_the_others(
    engine: Engine, mistral: StrictMistral, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, runtime = open_mill(engine, mistral, redis_url, texts_per_request=1, max_in_flight=50)
    mill.run(mill.submit(["a first text, so that the labels are known"]))
    mistral.billed.clear()
    texts = some_texts(50)
    _flaw_at(monkeypatch, texts[49], times=1)
    mistral.holds = lambda: mistral.most_concurrent < 49  # then they are under way, all but the one with the fault
    batch = mill.submit(texts)
    with pytest.raises(Flaw):
        mill.work(batch)
    assert mistral.most_concurrent == 49  # the fault came while all of them were under way
    assert mill.status(batch)["rows"]["labelled"] == 49
    assert mill.free_slots() == 50
    assert _run(mill, batch)["state"] == "completed"
    assert_all_labelled(mill, batch, texts)
    assert_billed_once(mill, texts)
    runtime.close()


def test_a_fault_while_requests_are_cut_costs_none_under_way(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ListClassification.plan
    broken = True

    def plan_badly(self: ListClassification, rows: Any, texts: Any) -> Any:
        for number, request in enumerate(plan(self, rows, texts)):
            if number == 3 and broken:
                raise Flaw
            yield request

    monkeypatch.setattr(ListClassification, "plan", plan_badly)
    mill.mistral.latency_s = 0.1
    texts = some_texts(60)
    batch = mill.submit(texts)
    with pytest.raises(Flaw):
        mill.work(batch)
    assert mill.status(batch)["rows"]["labelled"] == 30
    broken = False
    _run(mill, batch)
    assert_all_labelled(mill, batch, texts)
    assert_billed_once(mill, texts)


def test_a_row_that_always_meets_a_fault_fails_alone(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(40)
    texts[17] = "poison"
    _flaw_at(monkeypatch, "poison")
    batch = mill.submit(texts)
    document = _run(mill, batch)
    assert document["state"] == "completed"
    assert mill.errors(batch) == {17: "unexpected"}
    assert document["rows"]["labelled"] == 39
    assert_billed_once(mill, [content for content in texts if content != "poison"])


def test_a_fault_in_all_that_is_asked_ends_the_batch_with_the_reason(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flaw_at(monkeypatch, "text")
    batch = mill.submit(some_texts(40))
    document = _run(mill, batch)
    assert (document["state"], document["error_code"]) == ("failed", "unexpected")
    assert f"Flaw, {MAX_FAULTS} times" in document["error"]
    assert document["rows"]["pending"] == 40
    # run again, a fault counts anew
    _flaw_at(monkeypatch, "text", times=MAX_FAULTS - 1)
    retry(mill.engine, mill.sender, batch)
    assert _run(mill, batch)["rows"]["labelled"] == 40


def test_a_fault_is_charged_to_the_batch_that_was_worked_on(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    def flawed(model: Any, options: dict[str, Any], **given: Any) -> Any:
        if model.remote_model != MODEL:
            raise Flaw
        return _strategy_for(model, options, **given)

    monkeypatch.setattr(work, "strategy_for", flawed)
    healthy = mill.submit(some_texts(40))
    faulty = mill.submit(some_texts(40), model="ft:classifier:flawed")
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).where(BatchRow.id == faulty).values(priority="high"))
    for _ in range(MAX_FAULTS):  # each message names the healthy one, and brings the worker to the urgent one
        with writing(mill.engine) as connection:
            connection.execute(update(ChunkRow).values(sent_at=None))  # the pause after a fault is over
        with pytest.raises(Flaw):
            mill.work(healthy)
    assert mill.status(healthy)["state"] == "queued"
    assert (mill.status(faulty)["state"], mill.status(faulty)["error_code"]) == ("failed", "unexpected")
    with reading(mill.engine) as connection:
        blamed = set(connection.scalars(select(EventRow.job_id).where(EventRow.message.startswith("unexpected"))))
    assert blamed == {faulty}
    assert _run(mill, healthy)["rows"]["labelled"] == 40
