"""What the limits that Mistral reports mean for a batch."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from aiohttp import web
from asked import retry
from mill import MODEL, Mill, open_mill, some_texts, until
from sqlalchemy import select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, ok, result_of

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import ChunkRow
from labelmill.core.remote_models import Listed, keep_list
from labelmill_worker.inference import chunk_run, model_names, retry_policy
from labelmill_worker.process import delays

NOTHING = {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"}


def test_a_model_whose_limit_is_0_fails_the_batch_with_the_reason(mill: Mill) -> None:
    def refuse(texts: list[str], body: dict[str, Any]) -> web.Response:
        return web.Response(status=429, headers=NOTHING, body=b'{"message":"Rate limit exceeded"}')

    mill.mistral.faults = [refuse]
    document = mill.run(mill.submit(some_texts(200)))
    assert (document["state"], document["error_code"]) == ("failed", "model_unavailable")
    assert "limit is 0" in document["error"]
    assert mill.mistral.requests <= 8


def test_a_request_larger_than_a_minutes_tokens_is_sent_in_parts_and_a_text_that_is_fails_alone(mill: Mill) -> None:
    minute = 3_000

    def answer(texts: list[str], body: dict[str, Any]) -> web.Response:
        headers = {"x-ratelimit-limit-tokens-minute": str(minute), "x-ratelimit-remaining-tokens-minute": str(minute)}
        if sum(len(text) // 4 + 1 for text in texts) > minute:
            return web.Response(status=429, headers=headers, body=b'{"message":"Rate limit exceeded"}')
        response = ok([result_of(text) for text in texts])
        response.headers.update(headers)
        return response

    mill.mistral.faults = [answer]
    document = mill.run(mill.submit([*some_texts(4), "word " * 2_600]))
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 4, 1)
    assert document["failures"] == {"request_refused": 1}


def test_a_batch_pauses_before_the_months_tokens_are_exceeded_and_goes_on_by_retry(mill: Mill) -> None:
    left = 10_000
    asked: list[int] = []

    def answer(texts: list[str], body: dict[str, Any]) -> web.Response:
        nonlocal left
        tokens = sum(len(text) // 4 + 1 for text in texts)
        asked.append(left - tokens)
        left -= tokens
        response = ok([result_of(text) for text in texts])
        response.headers["x-ratelimit-limit-tokens-month"] = "10000"
        response.headers["x-ratelimit-remaining-tokens-month"] = str(max(0, left))
        return response

    mill.mistral.faults = [answer]
    mill.runtime._limiter._first_alone = True
    batch = mill.submit([f"{'a text of some length ' * 8}{number}" for number in range(400)])
    document = mill.run(batch)
    assert (document["state"], document["error_code"]) == ("paused", "monthly_limit")
    assert min(asked) >= 0
    assert document["rows"]["labelled"] > 0
    left = 1_000_000
    with redis.Redis.from_url(mill.settings.broker_url) as client:
        client.delete(*client.keys("labelmill:limit:*:reported"))  # as after some seconds without an answer
    retry(mill.engine, mill.sender, batch)
    assert mill.run(batch)["state"] == "completed"


def _takes_at_most(minute: int, told: dict[str, str]) -> Any:
    """Of a text too large for a minute it says nothing but 429; its answers say what is `told`."""

    def answer(texts: list[str], body: dict[str, Any]) -> web.Response:
        if sum(len(text) // 4 + 1 for text in texts) > minute:
            return web.Response(status=429, body=b'{"message":"Rate limit exceeded"}')
        response = ok([result_of(text) for text in texts])
        response.headers.update(told)
        return response

    return answer


@pytest.mark.parametrize("told", [{}, {"x-ratelimit-limit-tokens-minute": "3000"}], ids=["never", "by answers"])
def test_a_text_that_no_minute_takes_fails_also_where_no_429_tells_the_limit(
    mill: Mill, monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    monkeypatch.setattr(retry_policy, "QUIET_S", 0.2)
    monkeypatch.setattr(retry_policy, "REFUSED_ALONE_CLAIMS", 2)
    monkeypatch.setattr(retry_policy, "PAUSE_S", 0.3)
    # a text that is sent once the limit is known waits for a minute's tokens, which no setting makes shorter
    monkeypatch.setattr("mill.DEADLINE_S", 150.0)
    mill.mistral.faults = [_takes_at_most(3_000, told)]
    document = mill.run(mill.submit([*some_texts(20), "word " * 2_600, "words " * 2_600]))
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 20, 2)
    assert document["failures"] == {"request_refused": 2}


def test_a_text_as_large_as_others_that_were_answered_waits_for_its_limit_and_status_says_so(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_policy, "QUIET_S", 0.0)
    monkeypatch.setattr(retry_policy, "REFUSED_ALONE_CLAIMS", 1)
    monkeypatch.setattr(delays, "REPORTED_AFTER_S", 0.0)
    monkeypatch.setattr(chunk_run, "SLICE_S", 0.8)
    asked: list[str] = []

    def used_up(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        asked.extend(texts)
        return web.Response(status=429, body=b'{"message":"Rate limit exceeded"}') if len(asked) > 1 else None

    mill.mistral.faults = [used_up]
    mill.run(mill.submit(["a text of some words"]))
    batch = mill.submit(["a text of more words"])
    mill.work(batch)
    mill.runtime.delays.flush()
    document = mill.status(batch)
    assert (document["rows"]["pending"], (document["waiting_for"] or {})["reason"]) == (1, "rate_limit")
    assert "a request of about 6 tokens" in document["waiting_for"]["message"]
    mill.mistral.faults = []
    assert mill.run(batch)["rows"]["labelled"] == 1


def test_a_limit_that_is_set_for_a_name_binds_the_model_that_is_asked_by_another(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    made, runtime = open_mill(engine, mistral, redis_url, model_limits={"intents-latest": {"requests_per_minute": 600}})
    with writing(engine) as connection:
        keep_list(connection, [Listed(MODEL, ("intents-latest",)), Listed("intents-latest", (MODEL,))])
    batch = made.submit(some_texts(60))
    began = time.monotonic()
    assert made.run(batch)["rows"]["labelled"] == 60
    assert time.monotonic() - began > 0.45, "six requests, ten a second"
    runtime.close()


def test_a_chunk_whose_requests_cannot_begin_is_not_kept(
    engine: Engine, mistral: StrictMistral, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {MODEL: {"requests_per_minute": 6000}}
    made, runtime = open_mill(engine, mistral, redis_url, model_limits=limits, lease_s=1.0)
    batch = made.submit(some_texts(20))

    def away(_: object) -> list[Listed]:
        raise DatabaseUnavailable("the database is away")

    def is_kept() -> bool:
        with reading(engine) as connection:
            return bool(connection.scalar(select(ChunkRow.lease_until > db_now())))

    with monkeypatch.context() as patch:
        patch.setattr(model_names, "read_list", away)
        with pytest.raises(DatabaseUnavailable):
            made.work(batch)
    until(lambda: not is_kept())
    assert not mistral.billed
    runtime.close()
