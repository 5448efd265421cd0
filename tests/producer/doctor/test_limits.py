"""`doctor` shows the limits that Mistral reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from labelmill.doctor.checks import Status
from labelmill.doctor.limits import check_limits


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        for key in made.scan_iter("labelmill:limit:*"):
            made.delete(key)
        yield made


def report(client: redis.Redis, model: str, **fields: object) -> None:
    client.hset(
        f"labelmill:limit:0123456789ab:model:{model}:reported",
        mapping={name: str(value) for name, value in fields.items()},
    )


def test_limits_of_each_model_and_what_is_left_of_the_month_are_shown(client: redis.Redis) -> None:
    report(client, "mistral-embed", requests=60, tokens=20_000_000)
    report(client, "ft:classifier:m:1", month=1234)
    report(client, "unlimited", at=1)
    (check,) = check_limits(client)
    assert check.status is Status.OK
    assert check.summary == (
        "ft:classifier:m:1: 1,234 tokens left of the month; mistral-embed: 60 requests and 20,000,000 tokens a minute"
    )


def test_a_month_that_is_used_up_is_a_warning_and_odd_numbers_are_left_out(client: redis.Redis) -> None:
    report(client, "mistral-embed", month=0, requests="many", tokens="1e400")
    (check,) = check_limits(client)
    assert check.status is Status.WARNING
    assert check.summary == "mistral-embed: 0 tokens left of the month"


def test_where_nothing_was_reported_there_is_no_check(client: redis.Redis) -> None:
    assert check_limits(client) == []
