"""Mistral forgets jobs and files for a while or for good, does not stop a job, fails it as a whole, or says things that
cannot be: nothing is paid for twice without need, no cap stays taken, and nothing goes on for ever."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mill import some_texts
from remote_mill import RemoteMill
from sqlalchemy import func, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import MalformedAnswer, RateLimited, RemoteFailed, RemoteUnavailable, RequestRefused
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    BudgetRow,
    EventRow,
    LedgerRow,
    RemoteBatchRow,
    ReservationRow,
    RowErrorRow,
)
from labelmill.core.money.nanos import nanos
from labelmill.services.jobs.actions import cancel
from labelmill.services.jobs.requests import JobRequest
from labelmill_worker.inference.batch_mode import remote_job, steps, stopping, verdicts
from labelmill_worker.inference.batch_mode.results import ResultReader
from labelmill_worker.store.remote_batches import claim_remote_batch

UNKNOWN = RemoteFailed("Mistral knows no such thing (status 404)")
AWAY = RemoteUnavailable("Mistral has trouble (status 500)")
SPOILT = MalformedAnswer("Mistral's answer cannot be read (status 200)")


@pytest.fixture
def mill(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[RemoteMill]:
    made = RemoteMill(engine, redis_url, tmp_path / "data", prices={"ft:classifier:stand-in": (1.0, 1.0)})
    yield made
    made.close()


@pytest.fixture
def _soon_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "GONE_AFTER_S", 0.0)


def _capped(mill: RemoteMill, texts: list[str]) -> str:
    batch = mill.submit(texts)
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(max_cost=1.0))
    return batch


def _set(mill: RemoteMill, **values: Any) -> None:
    with writing(mill.engine) as connection:
        connection.execute(update(RemoteBatchRow).where(RemoteBatchRow.step != "done").values(**values))


def _reserved(mill: RemoteMill) -> tuple[int, int]:
    with reading(mill.engine) as connection:
        held = connection.scalar(select(func.coalesce(func.sum(ReservationRow.amount), 0)))
        return int(held or 0), int(connection.scalar(select(func.coalesce(func.sum(BudgetRow.reserved), 0))) or 0)


def _charged_without_answer(mill: RemoteMill) -> int:
    """What counts as spent though no request of it is known to be answered."""
    with reading(mill.engine) as connection:
        lines = select(func.coalesce(func.sum(LedgerRow.amount), 0.0)).where(LedgerRow.requests == 0)
        return nanos(connection.scalar(lines) or 0.0)


def _fail(
    mill: RemoteMill, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch, times: int = 1_000_000
) -> list[int]:
    """The first `times` calls of a method fail, before they do anything. Returns how many are left to fail."""
    whole, left = getattr(mill.jobs, name), [times]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return whole(*args, **kwargs)

    monkeypatch.setattr(mill.jobs, name, call)
    return left


def _change_jobs(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    whole = mill.jobs.get
    monkeypatch.setattr(mill.jobs, "get", lambda job_id: replace(whole(job_id), **changes))


# cleaning


def test_what_cannot_be_deleted_keeps_no_cap_taken_and_is_given_up(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["TIMEOUT_EXCEEDED"], 0.5
    _fail(mill, "delete_job", AWAY, monkeypatch)
    batch = _capped(mill, some_texts(100))
    mill.until(lambda: bool(mill.jobs.created))
    mill.jobs.statuses = ["RUNNING"] * 100_000
    mill.until(lambda: [row.step for row in mill.remote()] == ["cleaning", "waiting"])
    mill.until(lambda: mill.remote()[0].attempts > 1)
    first, second = mill.remote()
    assert _reserved(mill) == (second.reserved, second.reserved)
    with writing(mill.engine) as connection:
        of_first = RemoteBatchRow.no == first.no
        connection.execute(update(RemoteBatchRow).where(of_first).values(attempts=1_000))
    mill.until(lambda: mill.remote()[0].step == "done")
    assert mill.status(batch)["state"] == "running"
    assert mill.remote()[0].ended_at == first.ended_at, "what is known of its duration is lost"


# forgotten jobs and files


def test_a_job_that_mistral_does_not_know_yet_is_not_paid_twice(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(mill, "get", UNKNOWN, monkeypatch, times=remote_job.GONE_LOOKS + 3)
    texts = some_texts(60)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 60
    assert mill.memory.billed == Counter(texts)
    assert len(mill.jobs.created) == 1


@pytest.mark.usefixtures("_soon_gone")
def test_a_job_that_is_listed_is_not_gone(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail(mill, "get", UNKNOWN, monkeypatch, times=remote_job.GONE_LOOKS + 3)
    assert mill.run(mill.submit(some_texts(60)))["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 1


@pytest.mark.usefixtures("_soon_gone")
def test_a_job_that_stays_unknown_is_gone_and_counts_as_spent(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _capped(mill, some_texts(60))
    mill.until_step(batch, "waiting")
    reserved, _ = _reserved(mill)
    mill.jobs.jobs.clear()
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 60)
    assert len(mill.jobs.created) == 2
    assert _charged_without_answer(mill) == reserved > 0
    assert _reserved(mill) == (0, 0)


def test_a_file_that_is_not_known_for_a_while_is_asked_for_again(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(mill, "results", UNKNOWN, monkeypatch, times=3)
    texts = some_texts(60)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 60
    assert mill.memory.billed == Counter(texts)
    assert len(mill.jobs.created) == 1


@pytest.mark.parametrize("error", [UNKNOWN, AWAY, SPOILT], ids=["gone", "away", "spoilt"])
def test_results_that_are_never_read_count_as_spent(
    mill: RemoteMill, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "READING_PATIENCE_S", 0.0)
    failing = _fail(mill, "results", error, monkeypatch)
    batch = _capped(mill, some_texts(60))
    mill.until_step(batch, "reading")
    reserved, _ = _reserved(mill)
    mill.until(lambda: len(mill.remote()) > 1)
    failing[0] = 0
    assert mill.run(batch)["rows"]["labelled"] == 60
    assert _charged_without_answer(mill) == reserved > 0
    assert _reserved(mill) == (0, 0)


def test_results_of_a_cancelled_batch_that_are_given_up_count_as_spent(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(mill, "results", RateLimited("Mistral asks for fewer requests"), monkeypatch)
    batch = _capped(mill, some_texts(60))
    mill.until_step(batch, "reading")
    reserved, _ = _reserved(mill)
    cancel(mill.context, JobRequest(batch))
    _set(mill, attempts=1_000)
    assert mill.run(batch)["state"] == "cancelled"
    assert _charged_without_answer(mill) == reserved > 0
    assert _reserved(mill) == (0, 0)


# jobs that do not stop


@pytest.mark.parametrize(
    "error", [AWAY, RequestRefused("Mistral refused the request (status 400)", 400), UNKNOWN], ids=["500", "400", "404"]
)
def test_a_job_that_cannot_be_stopped_is_waited_for_no_longer_than_any(
    mill: RemoteMill, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses = ["RUNNING"] * 100_000
    _fail(mill, "cancel", error, monkeypatch)
    batch = mill.submit(some_texts(20))
    mill.until_step(batch, "waiting")
    cancel(mill.context, JobRequest(batch))
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    _set(mill, stop_asked_at=RemoteBatchRow.stop_asked_at - 3600)
    assert mill.run(batch)["state"] == "cancelled"


def test_a_job_is_asked_to_stop_until_it_does(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 100_000, 0.5
    _fail(mill, "cancel", AWAY, monkeypatch, times=3)
    batch = mill.submit(some_texts(200))
    mill.until_step(batch, "waiting")
    cancel(mill.context, JobRequest(batch))
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("cancelled", 100)


@pytest.mark.parametrize("error", [AWAY, SPOILT, RateLimited("later")], ids=["away", "spoilt", "limited"])
def test_a_job_of_which_nothing_is_said_any_more_is_not_waited_for(
    mill: RemoteMill, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses = ["RUNNING"] * 100_000
    batch = _capped(mill, some_texts(20))
    mill.until_step(batch, "waiting")
    reserved, _ = _reserved(mill)
    _fail(mill, "get", error, monkeypatch)
    cancel(mill.context, JobRequest(batch))
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    _set(mill, stop_asked_at=RemoteBatchRow.stop_asked_at - 3600)
    assert mill.run(batch)["state"] == "cancelled"
    assert _charged_without_answer(mill) == reserved > 0


def test_a_fault_while_a_job_is_being_stopped_does_not_outlast_the_patience(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses = ["RUNNING"] * 100_000
    batch = mill.submit(some_texts(20))
    mill.until_step(batch, "waiting")
    cancel(mill.context, JobRequest(batch))
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    failing = _fail(mill, "get", RateLimited("later", retry_after_s=600.0), monkeypatch, times=1)
    _set(mill, stop_asked_at=db_now() - stopping.STOP_PATIENCE_S + 30)
    mill.until(lambda: not failing[0])
    (row,) = mill.remote()
    assert row.stop_asked_at is not None
    assert row.next_look_at is not None
    assert row.next_look_at <= row.stop_asked_at + stopping.STOP_PATIENCE_S + 2


def test_a_job_that_may_have_been_made_is_not_looked_for_for_ever(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(mill, "create", AWAY, monkeypatch)
    _fail(mill, "find", AWAY, monkeypatch)
    batch = _capped(mill, some_texts(20))
    mill.until(lambda: any(row.step == "creating" and row.attempts > 1 for row in mill.remote()))
    reserved, _ = _reserved(mill)
    cancel(mill.context, JobRequest(batch))
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    assert mill.status(batch)["state"] == "running"
    _set(mill, stop_asked_at=RemoteBatchRow.stop_asked_at - 3600)
    assert mill.run(batch)["state"] == "cancelled"
    assert _charged_without_answer(mill) == reserved > 0


def test_a_late_job_is_given_up_though_mistral_says_nothing_of_it(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses = ["RUNNING"] * 100_000
    batch = mill.submit(some_texts(20))
    mill.until_step(batch, "waiting")
    failing = _fail(mill, "get", SPOILT, monkeypatch)
    mill.jobs.statuses = ["SUCCESS"]
    _set(mill, made_at=RemoteBatchRow.made_at - 30 * 3600)
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    _set(mill, stop_asked_at=RemoteBatchRow.stop_asked_at - 3600)
    mill.until(lambda: len(mill.remote()) > 1)
    failing[0] = 0
    assert mill.run(batch)["rows"]["labelled"] == 20


# faults of ours


def test_a_step_that_always_fails_holds_rows_and_money_no_longer_than_the_batch_runs(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise TypeError

    monkeypatch.setattr(ResultReader, "read", read)
    whole = mill.step

    def step() -> None:
        with contextlib.suppress(TypeError):
            whole()

    monkeypatch.setattr(mill, "step", step)
    batch = _capped(mill, some_texts(20))
    mill.until_step(batch, "reading")
    reserved, _ = _reserved(mill)
    mill.until(lambda: not mill.live(), batch)
    assert (mill.status(batch)["state"], mill.status(batch)["error_code"]) == ("failed", "unexpected")
    assert _charged_without_answer(mill) == reserved > 0
    assert _reserved(mill) == (0, 0)


@pytest.mark.parametrize("status", ["RUNNING", "SUCCESS"])
def test_mistral_cannot_have_done_more_requests_than_there_are(
    mill: RemoteMill, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change_jobs(mill, monkeypatch, succeeded_requests=2**40, failed_requests=2**40)
    mill.jobs.statuses = [status] * 3 + ["SUCCESS"]
    batch = mill.submit(some_texts(60))
    mill.until(lambda: mill.remote()[0].answered > 0)
    assert mill.remote()[0].answered == 6
    assert mill.run(batch)["rows"]["labelled"] == 60


# jobs that fail as a whole


def test_a_batch_whose_jobs_all_fail_as_a_whole_stops_with_mistrals_reason(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["FAILED"], 0.0
    _change_jobs(mill, monkeypatch, errors=("invalid model", "invalid model"))
    batch = mill.submit(some_texts(20))
    status = mill.run(batch)
    assert (status["state"], status["error_code"]) == ("failed", "remote_failed")
    assert status["error"].endswith(": invalid model")
    assert status["rows"]["pending"] == 20
    assert len(mill.jobs.created) == verdicts.MAX_FAILED_JOBS
    with reading(mill.engine) as connection:
        told = list(connection.scalars(select(EventRow.message).where(EventRow.job_id == batch)))
    assert any(message.endswith("ended FAILED: invalid model") for message in told)


def test_rows_whose_jobs_fail_as_a_whole_say_why_where_others_were_answered(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["TIMEOUT_EXCEEDED"], 0.5
    batch = mill.submit(some_texts(40))
    mill.until_step(batch, "done")
    mill.jobs.statuses, mill.jobs.answered_share = ["FAILED"], 0.0
    _change_jobs(mill, monkeypatch, errors=("the input was refused",))
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"], status["rows"]["failed"]) == ("completed", 20, 20)
    with reading(mill.engine) as connection:
        said = set(connection.scalars(select(RowErrorRow.message)))
    assert all("the input was refused" in message for message in said)
    assert said


# messages


def test_a_second_message_begins_no_second_chain_of_polls(mill: RemoteMill) -> None:
    mill.jobs.statuses = ["RUNNING"] * 100_000
    batch = mill.submit(some_texts(20))
    message = mill.waiting[0]
    mill.until_step(batch, "waiting")
    number = mill.remote()[0].no
    _set(mill, next_look_at=db_now() + 30)
    mill.waiting.clear()
    mill.waiting.append(message)
    mill.step()
    assert not mill.waiting, "it was looked at before its time"
    assert claim_remote_batch(mill.engine, number, 15) is None
    cancel(mill.context, JobRequest(batch))
    assert claim_remote_batch(mill.engine, number, 15) is not None, "a cancelled one is looked at once"
