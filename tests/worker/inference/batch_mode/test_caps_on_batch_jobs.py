"""Caps hold for batch jobs too: what a job may cost at most is reserved before it is made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from mill import some_texts
from remote_mill import RemoteMill
from sqlalchemy import func, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, BudgetRow, LedgerRow, RemoteBatchRow, ReservationRow, utc_now
from labelmill.core.money.nanos import nanos
from labelmill.services.jobs.actions import cancel
from labelmill.services.jobs.requests import JobRequest, RetryRequest
from labelmill.services.jobs.retrying import retry


@pytest.fixture
def mill(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[RemoteMill]:
    made = RemoteMill(engine, redis_url, tmp_path / "data", prices={"ft:classifier:stand-in": (1.0, 1.0)})
    yield made
    made.close()


def _set_cap(mill: RemoteMill, batch: str, usd: float) -> None:
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(max_cost=usd))


def _set_deadline(mill: RemoteMill, batch: str, in_s: float) -> None:
    with writing(mill.engine) as connection:
        at = utc_now() + timedelta(seconds=in_s)
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(deadline_at=at))


def _paid(mill: RemoteMill) -> float:
    with reading(mill.engine) as connection:
        return float(connection.scalar(select(func.coalesce(func.sum(LedgerRow.amount), 0.0))) or 0.0)


def _reserved(mill: RemoteMill) -> tuple[int, int]:
    """By the reservations, and by the budgets."""
    with reading(mill.engine) as connection:
        held = connection.scalar(select(func.coalesce(func.sum(ReservationRow.amount), 0)))
        return int(held or 0), int(connection.scalar(select(func.coalesce(func.sum(BudgetRow.reserved), 0))) or 0)


def test_a_batch_pauses_at_its_cap_and_goes_on_with_a_higher_one(mill: RemoteMill) -> None:
    texts = some_texts(200)
    batch = mill.submit(texts)
    _set_cap(mill, batch, 0.0004)
    status = mill.run(batch)
    assert (status["state"], status["error_code"]) == ("paused", "cap_reached")
    assert 0 < status["rows"]["labelled"] < 200
    assert 0 < _paid(mill) <= 0.0004
    assert _reserved(mill) == (0, 0)
    with reading(mill.engine) as connection:
        assert connection.scalar(select(BudgetRow.spent).where(BudgetRow.scope == batch)) == nanos(_paid(mill))
    _set_cap(mill, batch, 1.0)
    retry(mill.context, RetryRequest(batch))
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 200)
    assert _reserved(mill) == (0, 0)
    assert sum(mill.memory.billed.values()) == 200


def test_a_cap_below_the_first_request_pauses_at_once_and_sends_nothing(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(20))
    _set_cap(mill, batch, 0.0)
    assert mill.run(batch)["state"] == "paused"
    assert not mill.jobs.created


def test_answers_are_kept_whose_price_is_not_known_any_more(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(20))
    _set_cap(mill, batch, 1.0)
    mill.until_step(batch, "waiting")
    mill.set_prices({})
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 20)
    assert _reserved(mill) == (0, 0)
    assert sum(mill.memory.billed.values()) == 20


def test_a_job_whose_results_never_come_counts_as_spent(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    mill.jobs.statuses = ["RUNNING"] * 10_000
    monkeypatch.setattr(mill.jobs, "cancel", lambda job_id: mill.jobs.jobs[job_id])
    batch = mill.submit(some_texts(20))
    _set_cap(mill, batch, 1.0)
    mill.until_step(batch, "waiting")
    reserved, _ = _reserved(mill)
    assert reserved > 0
    cancel(mill.context, JobRequest(batch))
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    with writing(mill.engine) as connection:
        connection.execute(update(RemoteBatchRow).values(stop_asked_at=RemoteBatchRow.stop_asked_at - 3600))
    assert mill.run(batch)["state"] == "cancelled"
    assert nanos(_paid(mill)) == reserved
    assert _reserved(mill) == (0, 0)


def test_a_cap_holds_over_both_modes_of_a_batch_that_moves(mill: RemoteMill, mistral: StrictMistral) -> None:
    mill.serve_realtime(mistral.url)
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 1000, 0.5
    batch = mill.submit(some_texts(200), mode="auto")
    _set_cap(mill, batch, 1.0)
    _set_deadline(mill, batch, 3600)
    mill.until_step(batch, "waiting")
    _set_deadline(mill, batch, 31)
    mill.until(lambda: mill.batch_row(batch).runs_in == "realtime", batch)
    assert _reserved(mill) == (0, 0), "what the stopped job did not use is free again"
    by_batch_jobs = _paid(mill)
    _set_cap(mill, batch, by_batch_jobs * 2)  # in realtime each request costs twice as much
    status = mill.run(batch)
    assert (status["state"], status["error_code"]) == ("paused", "cap_reached")
    assert by_batch_jobs < _paid(mill) <= by_batch_jobs * 2
    assert 100 < status["rows"]["labelled"] < 200
    _set_cap(mill, batch, 1.0)
    retry(mill.context, RetryRequest(batch))
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 200)
    assert sum((mill.memory.billed + mistral.billed).values()) == 200
    assert _reserved(mill) == (0, 0)


def test_an_auto_batch_pauses_at_its_cap_before_it_moves(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(200), mode="auto")
    _set_cap(mill, batch, 0.0004)
    _set_deadline(mill, batch, 3600)
    status = mill.run(batch)
    assert (status["state"], status["error_code"]) == ("paused", "cap_reached")
    assert 0 < _paid(mill) <= 0.0004
    assert _reserved(mill) == (0, 0)


def test_status_says_which_batch_holds_up_the_next_job_under_a_monthly_cap(mill: RemoteMill) -> None:
    mill.jobs.statuses = [*["RUNNING"] * 40, "SUCCESS"]
    first = mill.submit(some_texts(20))
    mill.until_step(first, "waiting")
    mill.set_monthly_cap(1.0)
    second = mill.submit(some_texts(30))
    mill.until(lambda: (mill.status(second)["waiting_for"] or {}).get("reason") == "unreserved_jobs", second)
    message = mill.status(second)["waiting_for"]["message"]
    assert first in message
    assert "without a cap" in message
    assert len(mill.jobs.created) == 1
    with writing(mill.engine) as connection:  # as after the pause between two looks
        connection.execute(update(RemoteBatchRow).values(begun_at=RemoteBatchRow.begun_at - 20))
    mill.until(lambda: len(mill.jobs.created) == 2, second)
    assert (mill.status(second)["waiting_for"] or {}).get("reason") != "unreserved_jobs"
    assert mill.run(second)["state"] == "completed"
