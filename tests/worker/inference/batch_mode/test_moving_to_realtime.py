"""Mode auto: batch jobs while they keep the deadline, then realtime for what they did not answer."""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from mill import MODEL, assert_all_labelled, some_texts
from remote_mill import RemoteMill
from sqlalchemy import insert, select, update
from strict_mistral import StrictMistral

from labelmill.contracts.errors import InvalidInput, RateLimited
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import BatchRow, RemoteBatchRow, utc_now
from labelmill.core.reported_limits import KnownLimits, keep_limits
from labelmill.services.batches import read_deadline
from labelmill_worker.inference.batch_mode import packing


@pytest.fixture
def mill(mill: RemoteMill, mistral: StrictMistral) -> RemoteMill:
    """Its realtime requests go to a stand-in that counts what it is paid for."""
    mill.serve_realtime(mistral.url)
    return mill


def _set_deadline(mill: RemoteMill, batch: str, in_s: float) -> None:
    with writing(mill.engine) as connection:
        at = utc_now() + timedelta(seconds=in_s)
        connection.execute(update(BatchRow).where(BatchRow.id == batch).values(deadline_at=at))


def _change(mill: RemoteMill, **values: Any) -> None:
    with writing(mill.engine) as connection:
        connection.execute(update(RemoteBatchRow).where(RemoteBatchRow.step != "done").values(**values))


def test_batch_jobs_that_end_in_time_do_it_all(mill: RemoteMill, mistral: StrictMistral) -> None:
    batch = mill.submit(some_texts(60), mode="auto")
    _set_deadline(mill, batch, 3600)
    status = mill.run(batch)
    assert (status["state"], status["mode"], status["rows"]["labelled"]) == ("completed", "auto", 60)
    assert status["mode_reason"].startswith("batch: half the price")
    assert status["deadline_at"]
    assert not mistral.billed


def test_without_time_for_batch_jobs_it_begins_in_realtime(mill: RemoteMill, mistral: StrictMistral) -> None:
    texts = some_texts(60)
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 20)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 60)
    assert re.match("realtime: [12][0-9] s are left", status["mode_reason"]), "it was busy before it decided"
    assert not mill.jobs.created
    assert mistral.billed == Counter(texts)


def test_limits_that_mistral_told_make_realtime_slow_enough_to_begin_with_it(
    mill: RemoteMill, mistral: StrictMistral
) -> None:
    texts = some_texts(200)
    with writing(mill.engine) as connection:
        keep_limits(connection, {"ft:classifier:stand-in": KnownLimits(time.time(), requests_per_minute=6)})
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 240)  # 20 requests take 200 s
    status = mill.run(batch)
    assert status["mode_reason"].startswith("realtime: 4 min are left, and the rest takes about 3 min")
    assert not mill.jobs.created


def test_a_job_that_stalls_half_way_is_stopped_and_only_the_rest_sent_in_realtime(
    mill: RemoteMill, mistral: StrictMistral
) -> None:
    texts = some_texts(200)
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 1000, 0.5
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 3600)
    mill.until_step(batch, "waiting")
    _set_deadline(mill, batch, 31)  # the time goes by
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 200)
    assert_all_labelled(mill, batch, texts)
    assert sum(mill.memory.billed.values()) == 100
    assert mill.memory.billed + mistral.billed == Counter(texts), "something was paid twice"
    assert "realtime" in status["mode_reason"]
    assert status["requests"] == 20


def test_a_job_that_does_not_even_stop_is_not_waited_for(
    mill: RemoteMill, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = some_texts(60)
    mill.jobs.statuses = ["RUNNING"] * 10_000
    monkeypatch.setattr(mill.jobs, "cancel", lambda job_id: mill.jobs.jobs[job_id])
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 3600)
    mill.until_step(batch, "waiting")
    _set_deadline(mill, batch, 31)
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    _set_deadline(mill, batch, 31 - 60)
    _change(mill, stop_asked_at=RemoteBatchRow.stop_asked_at - 60)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 60)
    assert mistral.billed == Counter(texts), "no more is paid twice than the job had"


def _note_job(mill: RemoteMill, batch: str, took_s: float, *, ago_s: float = 60.0) -> None:
    """As if an earlier job had taken so long for a request, and ended so long ago."""
    with writing(mill.engine) as connection:
        times = {"begun_at": db_now(), "made_at": db_now() - ago_s - took_s, "ended_at": db_now() - ago_s}
        of_batch = select(BatchRow.no).where(BatchRow.id == batch).scalar_subquery()
        row = insert(RemoteBatchRow).values(batch_no=of_batch, step="done", marker=secrets.token_hex(12), **times)
        connection.execute(row.values(model=MODEL, remote_status="SUCCESS", requests=1, rows=1))


def test_no_job_is_made_that_would_be_late_as_earlier_ones_were(mill: RemoteMill, mistral: StrictMistral) -> None:
    texts = some_texts(60)
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 7200)
    _note_job(mill, batch, 5 * 3600)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 60)
    assert status["mode_reason"].startswith("realtime: a batch job is expected to take about 5.")
    assert not mill.jobs.created
    assert mistral.billed == Counter(texts)


def test_what_a_further_job_would_answer_too_late_waits_for_the_earlier_one_and_is_sent_in_realtime(
    mill: RemoteMill, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_REQUESTS", 4)
    mill.jobs.statuses = ["RUNNING"] * 12 + ["SUCCESS"]
    texts = some_texts(60)
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 7200)
    mill.until_step(batch, "waiting")
    _note_job(mill, batch, 2.2 * 3600)  # now it is known that jobs take longer; the one that is made is nearly done
    first = mill.remote()[0]
    with writing(mill.engine) as connection:
        earlier = RemoteBatchRow.made_at - 6_000
        connection.execute(update(RemoteBatchRow).where(RemoteBatchRow.no == first.no).values(made_at=earlier))
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 60)
    assert status["mode_reason"].startswith("realtime: a batch job is expected to take about 2.2 h")
    assert [job.id for job in mill.jobs.created] == [first.remote_id]
    assert mill.remote()[0].remote_status == "SUCCESS", "it was not stopped"
    assert mill.memory.billed == Counter(texts[:40])
    assert mistral.billed == Counter(texts[40:])


def test_a_slow_day_is_forgotten_after_a_week(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(60), mode="auto")
    _set_deadline(mill, batch, 7200)
    _note_job(mill, batch, 5 * 3600, ago_s=8 * 86_400)
    mill.until_step(batch, "waiting")
    assert len(mill.jobs.created) == 1


def test_a_stopped_job_is_waited_for_as_long_as_realtime_has_time_to_spare(
    mill: RemoteMill, mistral: StrictMistral
) -> None:
    texts = some_texts(200)
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 1000, 0.5
    mill.jobs.ending_polls = 3  # it takes a while to stop
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 3600)
    mill.until_step(batch, "waiting")
    _note_job(mill, batch, 5 * 3600)
    _change(mill, made_at=RemoteBatchRow.made_at - 3600)  # it is late
    mill.until(lambda: mill.remote()[0].stop_asked_at is not None)
    _set_deadline(mill, batch, 50)  # of 130 s that were left then …
    _change(mill, stop_asked_at=RemoteBatchRow.stop_asked_at - 80)
    assert mill.run(batch)["rows"]["labelled"] == 200
    assert sum(mill.memory.billed.values()) == 100, "its partial results are not read"
    assert mill.memory.billed + mistral.billed == Counter(texts)


def _limited(_: str) -> None:
    raise RateLimited("Mistral asks for fewer requests", retry_after_s=3600.0)


def test_results_that_the_rate_limit_withholds_do_not_cost_the_deadline(
    mill: RemoteMill, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mill.jobs, "inline_results", _limited)
    monkeypatch.setattr(mill.jobs, "results", _limited)
    texts = some_texts(60)
    batch = mill.submit(texts, mode="auto")
    _set_deadline(mill, batch, 600)
    mill.until(lambda: any(row.step == "reading" and row.attempts for row in mill.remote()))
    (row,) = mill.remote()
    assert row.next_look_at is not None
    assert row.next_look_at < time.time() + 600, "it is looked at again after the deadline"
    _set_deadline(mill, batch, 0.1)
    _change(mill, ended_at=RemoteBatchRow.ended_at - 60)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 60)
    assert mistral.billed == Counter(texts)


def test_a_long_retry_after_does_not_cost_the_deadline(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = mill.submit(some_texts(60), mode="auto")
    _set_deadline(mill, batch, 600)
    mill.until_step(batch, "waiting")
    monkeypatch.setattr(mill.jobs, "get", _limited)
    mill.until(lambda: mill.remote()[0].next_look_at > time.time() + 60)
    assert mill.remote()[0].next_look_at < time.time() + 600


def test_deadlines_are_read() -> None:
    assert read_deadline("auto", "90m") == 5400
    assert read_deadline("auto", "2h") == 7200
    assert read_deadline("auto", "1d") == 86400
    assert read_deadline("batch", None) is None


@pytest.mark.parametrize(
    ("mode", "deadline"),
    [("auto", None), ("batch", "2h"), ("realtime", "2h"), ("auto", "2"), ("auto", "0m"), ("auto", "8d"), ("x", None)],
)
def test_a_deadline_goes_with_mode_auto_and_has_a_unit(mode: str, deadline: str | None) -> None:
    with pytest.raises(InvalidInput):
        read_deadline(mode, deadline)
