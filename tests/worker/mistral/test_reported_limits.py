"""Limits that Mistral reports, shared by the fleet in a real Redis, whose clock is one of virtual time."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable

import pytest
import redis
from virtual_time import in_virtual_time, run_in_virtual_time, virtual_loop

from labelmill.contracts.errors import MonthlyLimitReached
from labelmill.contracts.reported_limits import ReportedLimits
from labelmill_worker.mistral.ratelimit.law import LAW
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.limits import MARGIN, Limit, RateLimits
from labelmill_worker.mistral.ratelimit.model_limiter import ModelLimiter, NoPermitInTime

_numbers = itertools.count()
MODEL = "mistral-medium-3-5"
Talk = Callable[[ModelLimiter, ModelLimiter], Awaitable[None]]


@pytest.fixture
def prefix() -> str:
    return f"test:reported:{next(_numbers)}"


def with_two(url: str, prefix: str, talk: Talk, limits: RateLimits | None = None) -> None:
    """Two processes, as far as the limiter knows."""

    async def run() -> None:
        both = [in_virtual_time(FleetLimiter(url, prefix, limits or RateLimits(), first_alone=True)) for _ in range(2)]
        try:
            await talk(*(limiter.of(MODEL) for limiter in both))
        finally:
            for limiter in both:
                await limiter.close()

    run_in_virtual_time(run)


async def reported(limiter: ModelLimiter, limits: ReportedLimits | None, *, used: int = 0, reserved: int = 0) -> None:
    """The limiter's request was answered just now, and Redis knows."""
    limiter.note_answer(limits, used, reserved, 0.0)
    await asyncio.gather(*limiter._tasks)


async def spacing_of(limiter: ModelLimiter) -> float:
    """Seconds between the permits of a process that has none reserved ahead."""
    await limiter.wait_for_permit(1, 5)
    return limiter._spacing_s


def test_the_first_request_to_a_model_goes_alone_until_its_answer_tells_the_limits(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert not one.is_open(1)
        assert await one.wait_for_permit(1, 5)
        with pytest.raises(NoPermitInTime):
            await other.wait_for_permit(1, 0.2)
        waiting = asyncio.create_task(other.wait_for_permit(1, 5))
        await reported(one, ReportedLimits(600, 599))
        assert await waiting
        assert other._spacing_s == pytest.approx(60 / 600 * LAW.minute_margin_factor, rel=0.01)

    with_two(redis_url, prefix, talk)


def test_a_model_without_reported_limits_is_open_to_all_after_its_first_answer(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, None)
        for limiter in (one, other):
            for _ in range(20):
                assert await limiter.wait_for_permit(1, 0.2)

    with_two(redis_url, prefix, talk)


def test_where_the_first_request_fails_or_is_not_sent_another_goes_alone(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        one.note_no_answer(1)
        assert await other.wait_for_permit(1, 2)
        other.return_permit(1)
        assert await one.wait_for_permit(1, 2)

    with_two(redis_url, prefix, talk)


def test_what_another_program_uses_is_left_to_it(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(1200, 1200 - 1 - 600))  # 600 of those gone were not sent from here
        assert await spacing_of(other) == pytest.approx(60 / 600 * LAW.minute_margin_factor, rel=0.01)

    with_two(redis_url, prefix, talk)


def test_a_program_that_has_begun_lately_is_left_what_it_will_use(redis_url: str, prefix: str) -> None:
    reported_key = f"{prefix}:model:{MODEL}:reported"

    async def left_to_others(limiter: ModelLimiter, used: int) -> float:
        limiter._reports._next_at = 0.0
        await reported(limiter, ReportedLimits(1200, 1200 - 1 - used))
        with redis.Redis.from_url(redis_url) as client:
            return float(client.hget(reported_key, "by_others") or -1)

    def time_goes_by(seconds: float) -> None:
        """As seen from what was noted so far."""
        with redis.Redis.from_url(redis_url) as client:
            for name, value in client.hgetall(reported_key).items():
                if name.startswith(b"by_others") and name.endswith(b"_at"):
                    client.hset(reported_key, name, float(value) - seconds)

    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        assert await left_to_others(one, 10) == 10, "an error of counting"
        assert await left_to_others(one, 100) == 100
        time_goes_by(10)
        assert await left_to_others(one, 200) == pytest.approx(300, abs=1), "ten a second more, for ten seconds more"
        time_goes_by(10)
        at_most = await left_to_others(one, 250)
        assert at_most == pytest.approx(300, abs=2), "five a second more"
        time_goes_by(20)
        assert 250 < await left_to_others(one, 240) < at_most
        time_goes_by(600)
        assert await left_to_others(one, 240) == pytest.approx(240, abs=2)
        assert await left_to_others(one, 0) == 0

    with_two(redis_url, prefix, talk)


def test_a_window_that_others_have_used_up_is_waited_for(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(50, 49))
        for _ in range(3):
            assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(50, 0))  # 46 of others: 4 are left, and 4 were sent
        with pytest.raises(NoPermitInTime) as held:
            await other.wait_for_permit(1, 5)
        assert 50 < held.value.wait_s < 61, "the first of the four leaves the window after a minute"

    with_two(redis_url, prefix, talk)


def test_a_429_that_the_window_explains_lowers_no_rate(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(1200, 1199))
        for _ in range(3):
            await one.pause(0.001, 0.0, ReportedLimits(1200, 0), 1)
        with redis.Redis.from_url(redis_url) as client:
            adaptation = client.hgetall(f"{prefix}:model:{MODEL}:adaptation")
            assert b"factor" not in adaptation
            assert client.hget(f"{prefix}:model:{MODEL}:reported", "by_others") != b"0"

    with_two(redis_url, prefix, talk)


@pytest.mark.parametrize(("set_per_s", "spacing_s"), [(100.0, 0.1 * LAW.minute_margin_factor), (5.0, 0.2 * MARGIN)])
def test_a_setting_is_an_upper_bound_of_what_is_reported(
    redis_url: str, prefix: str, set_per_s: float, spacing_s: float
) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(600, 599))
        assert await spacing_of(other) == pytest.approx(spacing_s, rel=0.01)

    with_two(redis_url, prefix, talk, RateLimits(Limit.of(set_per_s, None)))


def test_reported_tokens_hold_back_what_follows_them(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(None, None, 6000, 5999), used=1, reserved=1)
        assert await one.wait_for_permit(200, 5)  # two seconds' worth
        assert one.counts_tokens
        with pytest.raises(NoPermitInTime) as held:
            await other.wait_for_permit(1, 0.1)
        assert 1.5 < held.value.wait_s < 2.1
        await one.settle(200, 0)
        assert await other.wait_for_permit(1, 0.1)

    with_two(redis_url, prefix, talk)


def test_no_request_is_started_that_the_months_tokens_do_not_suffice_for(redis_url: str, prefix: str) -> None:
    month = ReportedLimits(tokens_per_month=1000, tokens_left_of_month=100)

    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(10, 5)
        await reported(one, month, used=10, reserved=10)
        assert await one.wait_for_permit(60, 5)
        with pytest.raises(MonthlyLimitReached, match=MODEL):
            await other.wait_for_permit(60, 5)
        assert await other.wait_for_permit(40, 5)

    with_two(redis_url, prefix, talk)


End = Callable[[ModelLimiter, int], Awaitable[None] | None]


async def _refused(limiter: ModelLimiter, tokens: int) -> None:
    await limiter.pause(0.001, 0.0, None, tokens)


async def _answered(limiter: ModelLimiter, tokens: int) -> None:
    limiter._reports._next_at = 0.0
    await reported(limiter, ReportedLimits(tokens_per_month=1000, tokens_left_of_month=100), used=0, reserved=tokens)


@pytest.mark.parametrize(
    "end",
    [ModelLimiter.note_no_answer, ModelLimiter.return_permit, _refused, _answered],
    ids=["fault", "not used", "429", "answer"],
)
def test_a_request_that_has_ended_holds_no_tokens_of_the_month(redis_url: str, prefix: str, end: End) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(10, 5)
        await reported(one, ReportedLimits(tokens_per_month=1000, tokens_left_of_month=100), used=10, reserved=10)
        for _ in range(4):  # each needs more than half of what is left
            assert await one.wait_for_permit(60, 5)
            ended = end(one, 60)
            if ended is not None:
                await ended
        one._reports._next_at = 0.0  # a report is due
        await reported(one, None)
        assert one._under_way == 0

    with_two(redis_url, prefix, talk)


def test_a_report_that_is_lost_leaves_no_tokens_of_the_month_reserved(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        month = ReportedLimits(tokens_per_month=1000, tokens_left_of_month=100)
        assert await one.wait_for_permit(10, 5)
        await reported(one, month, used=10, reserved=10)
        assert await one.wait_for_permit(60, 5)
        scripts, one._scripts = one._scripts, {"report": _unreachable}  # type: ignore[dict-item]
        one._reports._next_at = 0.0
        await reported(one, month, used=60, reserved=60)
        one._scripts = scripts
        assert await one.wait_for_permit(60, 5)

    with_two(redis_url, prefix, talk)


async def _unreachable(**_: object) -> None:
    raise redis.ConnectionError


def test_what_a_killed_process_had_reserved_of_the_month_counts_for_two_minutes(redis_url: str, prefix: str) -> None:
    async def talk(killed: ModelLimiter, other: ModelLimiter) -> None:
        assert await killed.wait_for_permit(10, 5)
        await reported(killed, ReportedLimits(tokens_per_month=1000, tokens_left_of_month=100), used=10, reserved=10)
        assert await killed.wait_for_permit(60, 5)
        with pytest.raises(MonthlyLimitReached):
            await other.wait_for_permit(60, 5)
        with redis.Redis.from_url(redis_url) as client:
            (process,) = client.hkeys(f"{prefix}:model:{MODEL}:under_way")
            said = f"{virtual_loop().redis_now() - LAW.under_way_kept_s - 2:.3f}:60"
            client.hset(f"{prefix}:model:{MODEL}:under_way", process, said)
        assert await other.wait_for_permit(60, 5)

    with_two(redis_url, prefix, talk)


def test_a_request_that_was_refused_used_no_tokens_of_the_minute(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(None, None, 6000, 5999), used=1, reserved=1)
        assert await one.wait_for_permit(50, 5)
        await one.pause(0.001, 0.0, ReportedLimits(None, None, 6000, 5000), 50)  # 999 were used by others
        with redis.Redis.from_url(redis_url) as client:
            assert client.hget(f"{prefix}:model:{MODEL}:reported", "of_others") == b"999.000000"

    with_two(redis_url, prefix, talk)


def test_limits_nobody_heard_of_for_long_are_asked_for_again(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(600, 599))
        with redis.Redis.from_url(redis_url) as client:
            assert 0 < client.ttl(f"{prefix}:model:{MODEL}:reported") <= LAW.reported_kept_s
            client.delete(f"{prefix}:model:{MODEL}:reported")
        assert await other.wait_for_permit(1, 5)
        with pytest.raises(NoPermitInTime):
            await one.wait_for_permit(1, 0.2)

    with_two(redis_url, prefix, talk)


def test_tokens_given_back_after_429s_free_all_of_what_they_had_reserved(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        assert await one.wait_for_permit(1, 5)
        await reported(one, ReportedLimits(None, None, 6000, 6000))
        for _ in range(4):  # each lowers the rate at which tokens are reserved
            await one.pause(0.001)
            await asyncio.sleep(0.002)
        await one.wait_for_permit(3000, 5)
        await one.settle(3000, 0)
        await other.wait_for_permit(3000, 0.5)

    with_two(redis_url, prefix, talk)


def test_a_429_tells_how_long_the_fleet_was_answered_nothing_and_how_large_its_answers_were(
    redis_url: str, prefix: str
) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        nothing = await other.pause(0.001)
        assert (nothing.quiet_s, nothing.largest_answered, nothing.tokens_per_minute) == (math.inf, 0, None)
        for tokens in (700, 30):
            await one.wait_for_permit(tokens, 20)
            await reported(one, ReportedLimits(None, None, 6000), reserved=tokens)
        await asyncio.sleep(0.3)
        facts = await other.pause(0.001, since_start_s=0.1)
        assert (facts.largest_answered, facts.tokens_per_minute) == (700, 6000)
        assert 0.15 < facts.quiet_s < 5

    with_two(redis_url, prefix, talk)
