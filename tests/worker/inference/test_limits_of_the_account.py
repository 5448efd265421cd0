"""What the limits that Mistral reports mean for a batch."""

from __future__ import annotations

from typing import Any

import redis
from aiohttp import web
from asked import retry
from mill import Mill, some_texts
from strict_mistral import ok, result_of

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
