"""Tokens of a month are looked at before a batch job is made, as before a request in realtime."""

from __future__ import annotations

import time

import pytest
from mill import MODEL, some_texts
from remote_mill import RemoteMill
from strict_mistral import StrictMistral

from labelmill.core.database import reading, writing
from labelmill.core.reported_limits import KnownLimits, keep_limits, rest_of_month
from labelmill.services.jobs.requests import RetryRequest
from labelmill.services.jobs.retrying import retry
from labelmill_worker.inference.batch_mode import packing
from labelmill_worker.inference.planning import Request

A_MONTH_S = 31 * 24 * 3600


def _tell(mill: RemoteMill, tokens: int, seen_at: float | None = None) -> None:
    known = KnownLimits(seen_at or time.time(), tokens_left_of_month=tokens)
    with writing(mill.engine) as connection:
        keep_limits(connection, {MODEL: known})


def test_a_batch_pauses_before_a_job_needs_more_than_the_month_has_and_goes_on_by_retry(mill: RemoteMill) -> None:
    texts = some_texts(200)
    needed = Request(range(200), texts).tokens
    _tell(mill, needed // 2)
    batch = mill.submit(texts)
    status = mill.run(batch)
    assert (status["state"], status["error_code"]) == ("paused", "monthly_limit")
    assert status["tokens_left_of_month"] == needed // 2
    assert 0 < status["rows"]["labelled"] <= 120
    assert sum(len(text) // 4 + 1 for text in mill.memory.billed) <= needed // 2
    retry(mill.context, RetryRequest(batch))
    assert mill.run(batch)["state"] == "completed"


def test_what_jobs_need_that_were_made_since_is_no_longer_left(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_REQUESTS", 10)
    texts = some_texts(200)
    _tell(mill, Request(range(100), texts[:100]).tokens * 5 // 4)
    batch = mill.submit(texts)
    status = mill.run(batch)
    assert (status["state"], status["error_code"]) == ("paused", "monthly_limit")
    assert 100 <= status["rows"]["labelled"] <= 130
    assert len(mill.jobs.created) == 2


def test_what_was_told_in_another_month_or_of_another_model_holds_nothing_up(mill: RemoteMill) -> None:
    _tell(mill, 0, time.time() - A_MONTH_S)
    with writing(mill.engine) as connection:
        keep_limits(connection, {"another": KnownLimits(time.time(), tokens_left_of_month=0)})
    status = mill.run(mill.submit(some_texts(20)))
    assert (status["state"], status["tokens_left_of_month"]) == ("completed", None)


def test_a_batch_of_mode_auto_pauses_too(mill: RemoteMill, mistral: StrictMistral) -> None:
    mill.serve_realtime(mistral.url)
    _tell(mill, 0)
    status = mill.run(mill.submit(some_texts(20), mode="auto"))
    assert (status["state"], status["error_code"]) == ("paused", "monthly_limit")
    assert not mistral.billed


def test_older_news_does_not_replace_newer(mill: RemoteMill) -> None:
    now = time.time()
    _tell(mill, 5, now)
    _tell(mill, 9, now - 1)
    with reading(mill.engine) as connection:
        rest = rest_of_month(connection, MODEL)
    assert rest is not None
    assert rest.tokens_left_of_month == 5
