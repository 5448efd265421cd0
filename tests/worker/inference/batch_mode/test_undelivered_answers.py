"""What Mistral answered, and bills, and does not deliver counts as spent: in the ledger, and under every cap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mill import some_texts
from mistral_answers import LABELS
from remote_mill import RemoteMill
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import RemoteUnavailable
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    BudgetRow,
    LedgerRow,
    ModelRow,
    ModelTargetRow,
    RemoteBatchRow,
    ReservationRow,
)
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.nanos import nanos
from labelmill.core.money.prices import PriceList
from labelmill.services.jobs.actions import cancel
from labelmill.services.jobs.requests import JobRequest, RetryRequest
from labelmill.services.jobs.retrying import retry
from labelmill.services.purging import PurgeRequest, purge
from labelmill_worker.inference.batch_mode import packing, remote_job, steps, stopping, verdicts
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.store.budgets import Cap, reserve
from labelmill_worker.store.budgets import release as release_reservation
from labelmill_worker.store.remote_batches import claim_remote_batch, require_remote, takes_lists

Lines = list[dict[str, Any]]
PRICES = {"ft:classifier:stand-in": (1.0, 1.0), "mistral-small-2603": (1.0, 1.0)}


@pytest.fixture
def mill(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[RemoteMill]:
    made = RemoteMill(engine, redis_url, tmp_path / "data", prices=PRICES)
    yield made
    made.close()


def capped(mill: RemoteMill, batch: str, usd: float) -> str:
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(max_cost=usd))
    return batch


def requests_paid(mill: RemoteMill) -> int:
    with reading(mill.engine) as connection:
        return int(connection.scalar(select(func.coalesce(func.sum(LedgerRow.requests), 0))) or 0)


def paid(mill: RemoteMill) -> float:
    with reading(mill.engine) as connection:
        return float(connection.scalar(select(func.coalesce(func.sum(LedgerRow.amount), 0.0))) or 0.0)


def drop_first(lines: Lines) -> Lines:
    return [line for line in lines if not line["custom_id"].endswith("-0")] if len(lines) > 1 else []


def without_ids(lines: Lines) -> Lines:
    return [{name: value for name, value in line.items() if name != "custom_id"} for line in lines]


@pytest.mark.parametrize("max_cost", [None, 1.0])
@pytest.mark.parametrize("spoil", [lambda lines: lines[:-2], without_ids])
def test_each_answer_that_a_job_does_not_deliver_is_paid_for(
    mill: RemoteMill, spoil: Any, max_cost: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MAX_TRIES", 3)
    mill.jobs.spoil_output = spoil
    batch = mill.submit(some_texts(100))
    if max_cost is not None:
        capped(mill, batch, max_cost)
    mill.run(batch)
    assert requests_paid(mill) == mill.memory.requests > 10
    with reading(mill.engine) as connection:
        budget = connection.execute(select(BudgetRow.spent, BudgetRow.reserved)).first()
    assert budget is None or tuple(budget) == (nanos(paid(mill)), 0)
    assert (budget is None) == (max_cost is None)


def test_a_cap_holds_though_answers_are_dropped_again_and_again(mill: RemoteMill) -> None:
    mill.jobs.spoil_output = lambda _: [{"id": "of nobody"}]
    batch = capped(mill, mill.submit(some_texts(100)), 0.0005)
    assert mill.run(batch)["error_code"] == "cap_reached"
    assert 0 < paid(mill) <= 0.0005
    assert requests_paid(mill) == mill.memory.requests


def test_a_lost_line_of_a_request_that_failed_is_not_paid_for(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MAX_TRIES", 2)
    mill.memory.faults.append(lambda texts, _: _status(503) if any("text 1 " in f"{text} " for text in texts) else None)
    mill.jobs.spoil_errors = lambda _: []
    texts = [f"text {number} " for number in range(20)]
    mill.run(mill.submit(texts))
    assert requests_paid(mill) == 1


def _status(code: int) -> Any:
    return web.Response(status=code, body=b'{"message":"trouble"}')


@pytest.mark.parametrize("status", ["TIMEOUT_EXCEEDED", "FAILED"])
def test_what_a_job_that_broke_off_did_not_try_is_not_paid_for(mill: RemoteMill, status: str) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING", status], 0.5
    mill.jobs.spoil_output = lambda lines: lines[1:]
    batch = mill.submit(some_texts(100))
    mill.until(lambda: len(mill.jobs.created) > 1, batch)
    assert (mill.memory.requests, requests_paid(mill)) == (5, 5), "five of ten were answered, four delivered"


def test_the_tokens_are_exact_of_answers_that_do_not_say_whose_they_are(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MAX_TRIES", 2)
    schema = LabelSchema((Target("intent", tuple(sorted(LABELS))),))
    recipe = {"system": system_message(schema, {}), "answer_schema": answer_schema(schema)}
    columns = {"version": 1, "promoted": True, "remote_model": "mistral-small-2603", "label_schema": schema.to_json()}
    with writing(mill.engine) as connection:
        row = insert(ModelRow).values(name="prompted", method="prompt", recipe=recipe, **columns).returning(ModelRow.no)
        connection.execute(insert(ModelTargetRow).values(model_no=connection.scalar(row), target=0, name="intent"))
    mill.jobs.spoil_output = without_ids
    mill.run(mill.submit(some_texts(5), model="prompted"))
    with reading(mill.engine) as connection:
        lines = connection.execute(select(LedgerRow.requests, LedgerRow.estimated)).all()
    assert sum(line.requests for line in lines) == mill.memory.requests == 10
    assert not any(line.estimated for line in lines)


def test_an_uncapped_job_whose_results_never_come_is_paid_for(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "STOP_PATIENCE_S", 0.0)
    mill.jobs.statuses = ["RUNNING"] * 10_000
    monkeypatch.setattr(mill.jobs, "cancel", lambda job_id: mill.jobs.jobs[job_id])
    batch = mill.submit(some_texts(50))
    mill.until_step(batch, "waiting")
    cancel(mill.context, JobRequest(batch))
    assert mill.run(batch)["state"] == "cancelled"
    assert requests_paid(mill) == 5
    assert paid(mill) > 0


def test_an_uncapped_job_that_is_gone_is_paid_for(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "GONE_AFTER_S", 0.0)
    batch = mill.submit(some_texts(50))
    mill.until_step(batch, "waiting")
    mill.jobs.jobs.clear()
    assert mill.run(batch)["rows"]["labelled"] == 50
    assert requests_paid(mill) == 10


def test_uncapped_results_that_cannot_be_read_are_paid_for(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "READING_PATIENCE_S", 0.0)
    whole, left = mill.jobs.results, [6]

    def results(file_id: str) -> Any:
        if left[0]:
            left[0] -= 1
            raise RemoteUnavailable("nobody answers")
        yield from whole(file_id)

    monkeypatch.setattr(mill.jobs, "results", results)
    assert mill.run(mill.submit(some_texts(60)))["rows"]["labelled"] == 60
    assert requests_paid(mill) == mill.memory.requests == 12


def test_a_cap_that_is_set_later_waits_for_jobs_that_have_reserved_nothing(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_REQUESTS", 10)
    monkeypatch.setattr(steps, "_UNRESERVED_PAUSE_S", 0.001)
    mill.jobs.statuses = ["RUNNING"] * 30 + ["SUCCESS"]
    batch = mill.submit(some_texts(400), chunk_texts=100)
    mill.until_step(batch, "waiting")
    made = len(mill.jobs.created)
    with writing(mill.engine) as connection:  # as after a key that was refused for a while
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(state="failed"))
    retry(replace(mill.context, prices=PriceList(PRICES)), RetryRequest(batch, 0.0005))
    for _ in range(10):
        mill.step()
    assert len(mill.jobs.created) == made < 4
    mill.jobs.statuses = ["SUCCESS"]
    assert mill.run(batch)["error_code"] == "cap_reached"
    assert 0.0003 < paid(mill) <= 0.0005
    assert len(mill.jobs.created) > made


def test_a_batch_is_not_purged_while_its_job_at_mistral_is_being_stopped(mill: RemoteMill) -> None:
    mill.jobs.statuses, mill.jobs.ending_polls = ["RUNNING"] * 10_000, 3
    batch = mill.submit(some_texts(20))
    mill.until_step(batch, "waiting")
    with writing(mill.engine) as connection:
        long_ago = {"state": "failed", "finished_at": func.datetime("2020-01-01")}
        if mill.engine.dialect.name == "postgresql":
            long_ago["finished_at"] = func.to_timestamp(0)
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(**long_ago))
    purge(mill.context, PurgeRequest("1d"))
    assert mill.run(batch)["state"] == "failed"
    assert {job.status for job in mill.jobs.jobs.values()} <= {"CANCELLED"}
    purge(mill.context, PurgeRequest("1d"))
    with reading(mill.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(RemoteBatchRow)) == 0


def test_rows_that_failed_wait_near_a_cap_too(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(steps, "retry_pause_s", lambda number, _: float(tries.append(number) or 0))
    mill.memory.faults.append(lambda *_: _status(503))
    batch = capped(mill, mill.submit(some_texts(100), chunk_texts=100), 0.0003)
    mill.until(lambda: len(mill.jobs.created) == 3, batch)
    assert tries == [0, 1, 2], "each job in vain makes the next one wait longer"


def test_lines_of_refused_lists_that_come_twice_count_once(mill: RemoteMill) -> None:
    mill.memory.faults.append(lambda texts, _: _status(422) if len(texts) > 1 else None)
    mill.jobs.spoil_errors = lambda lines: lines * 2
    assert mill.run(mill.submit(some_texts(20)))["rows"]["labelled"] == 20
    assert mill.remote()[0].refused_lists == mill.remote()[0].lists == 2
    assert not takes_lists(mill.engine, "ft:classifier:stand-in")


def test_a_worker_that_lost_a_remote_batch_changes_nothing_of_its_reservation(mill: RemoteMill) -> None:
    batch = capped(mill, mill.submit(some_texts(20)), 1.0)
    mill.until_step(batch, "waiting")
    (row,) = mill.remote()
    stale = claim_remote_batch(mill.engine, row.no, 15)
    assert stale is not None
    with writing(mill.engine) as connection:
        connection.execute(update(RemoteBatchRow).values(lease_token=None, lease_until=None, next_look_at=1.0))
    assert claim_remote_batch(mill.engine, row.no, 15) is not None

    def guard(connection: Any) -> None:
        require_remote(connection, stale)

    with pytest.raises(LeaseLost):
        release_reservation(mill.engine, stale.holder.key, guard)
    with pytest.raises(LeaseLost):
        reserve(mill.engine, [Cap(batch, nanos(1.0))], stale.holder, 1, guard)
    with reading(mill.engine) as connection:
        assert connection.scalar(select(ReservationRow.amount)) == row.reserved > 0
