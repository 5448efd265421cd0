"""The shared rate limit against a real Redis, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Self

import pytest
import redis
from virtual_time import in_virtual_time, run_in_virtual_time, virtual_loop

from labelmill.contracts.errors import BrokerUnavailable
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.limits import MARGIN, Limit, RateLimits
from labelmill_worker.mistral.ratelimit.model_limiter import ModelLimiter, NoPermitInTime

_numbers = itertools.count()
Talk = Callable[[ModelLimiter, ModelLimiter], Awaitable[None]]
MODEL = "mistral-embed"


@pytest.fixture
def prefix() -> str:
    return f"test:limit:{next(_numbers)}"


def _with_two(url: str, prefix: str, rate: float | None, tokens: float | None, talk: Talk) -> None:
    async def run() -> None:
        both = [in_virtual_time(FleetLimiter(url, prefix, RateLimits(Limit.of(rate, tokens)))) for _ in range(2)]
        try:
            await talk(*(limiter.of(MODEL) for limiter in both))
        finally:
            for limiter in both:
                await limiter.close()

    run_in_virtual_time(run)


def test_two_processes_share_one_rate_evenly_spaced(redis_url: str, prefix: str) -> None:
    """What is reserved after n requests lies n spacings after the first: no burst was given away."""
    rate, count = 50.0, 40

    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        loop = asyncio.get_running_loop()
        starts: list[float] = []

        async def start(limiter: ModelLimiter) -> None:
            await limiter.wait_for_permit(1, 5)
            starts.append(loop.time())

        began, redis_began = loop.time(), virtual_loop().redis_now()
        await asyncio.gather(*(start(limiter) for _ in range(count // 2) for limiter in (one, other)))
        for number, moment in enumerate(sorted(starts)):
            assert moment - began >= MARGIN * number / rate - 0.001, f"start {number} came early"
        with redis.Redis.from_url(redis_url) as client:
            reserved_until = float(client.get(f"{prefix}:next") or 0)
        assert reserved_until - redis_began >= MARGIN * count / rate - 0.001

    _with_two(redis_url, prefix, rate, None, talk)


def test_tokens_hold_back_what_follows_them(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.wait_for_permit(1000, 5)  # 6,000 a minute: ten seconds' worth
        with pytest.raises(NoPermitInTime) as held:
            await other.wait_for_permit(1, 0.1)
        assert 5 < held.value.wait_s <= 10.01 * MARGIN

    _with_two(redis_url, prefix, None, 6000, talk)


def test_a_permit_that_a_busy_process_missed_takes_no_tokens(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.wait_for_permit(1000, 5)  # 60,000 a minute: one second's worth
        late = asyncio.create_task(one.wait_for_permit(30_000, 5))
        virtual_loop().call_later(0.9, virtual_loop().be_busy, 1.0)
        assert await late
        with pytest.raises(NoPermitInTime) as held:
            await other.wait_for_permit(1, 5)
        assert held.value.wait_s < 31 * MARGIN, "for the tokens of that request, and once"

    _with_two(redis_url, prefix, None, 60_000, talk)


def test_tokens_of_a_permit_that_is_not_used_are_given_back(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.wait_for_permit(30_000, 5)
        one.return_permit(30_000)
        await asyncio.gather(*one._tasks)
        assert await other.wait_for_permit(1000, 1)

    _with_two(redis_url, prefix, None, 60_000, talk)


def test_who_is_held_back_reserves_nothing(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.wait_for_permit(1, 5)  # a busy machine may wake it up late, and it waits for another moment
        waits = []
        for limiter in (one, other) * 10:
            with pytest.raises(NoPermitInTime) as held:
                await limiter.wait_for_permit(1, 0.1)
            waits.append(held.value.wait_s)
        assert max(waits) <= 2.001 * MARGIN

    _with_two(redis_url, prefix, 0.5, None, talk)


def test_while_a_lower_rank_asks_the_others_have_a_fifth(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        started = {0: 0, 6: 0}

        async def start(limiter: ModelLimiter, rank: int) -> None:
            while sum(started.values()) < 50:
                started[rank] += await limiter.wait_for_permit(1, 5, rank)

        await one.wait_for_permit(1, 5, 0)
        await asyncio.gather(start(one, 0), start(other, 6))
        assert 5 <= started[6] <= 12
        async with asyncio.timeout(30):  # nobody asks before it any more
            while not all([await other.wait_for_permit(1, 5, 6) for _ in range(10)]):
                pass

    _with_two(redis_url, prefix, 20, None, talk)


def test_equal_ranks_and_calls_without_a_rank_do_not_yield(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        for limiter, rank in ((one, 3), (other, 3), (other, None), (one, 0), (other, None), (other, 0)):
            assert await limiter.wait_for_permit(1, 5, rank)

    _with_two(redis_url, prefix, 20, None, talk)


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_pause_holds_back_the_whole_fleet(redis_url: str, prefix: str, rate: float | None) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.pause(60)
        await other.pause(1)  # a longer pause is never shortened
        for limiter in (one, other):
            with pytest.raises(NoPermitInTime) as held:  # noqa: PT012 - the wait is what is tested
                async with asyncio.timeout(30):
                    while True:  # without a limit the other learns of it a moment later
                        await limiter.wait_for_permit(1, 2)
                        await asyncio.sleep(0.01)
            assert 50 < held.value.wait_s <= 60.01

    _with_two(redis_url, prefix, rate, None, talk)


def test_without_redis_nothing_may_start(prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        with pytest.raises(BrokerUnavailable):
            await one.wait_for_permit(1, 5)
        with pytest.raises(BrokerUnavailable):
            await other.pause(1)

    _with_two("redis://127.0.0.1:1/0", prefix, 10, None, talk)


class Past:
    """Lets time pass for what the limit remembers: its moments are moved back."""

    def __init__(self, url: str, prefix: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True)
        model = f"{prefix}:model:{MODEL}"
        self._adaptation, self._pause = f"{model}:adaptation", f"{model}:pause"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def goes_by(self, seconds: float) -> None:
        self._client.delete(self._pause)
        for name in ("since", "pause_end"):
            self._client.hincrbyfloat(self._adaptation, name, -seconds)

    def remembers(self, name: str) -> float:
        return float(self._client.hget(self._adaptation, name) or 0)

    def pause_left_s(self) -> float:
        return max(0.0, float(self._client.get(self._pause) or 0) - self.redis_now())

    def redis_now(self) -> float:
        return virtual_loop().redis_now()

    @property
    def is_slow(self) -> bool:
        return bool(self._client.exists(self._adaptation))

    def guess(self) -> float:
        return self.remembers("guess")


def test_a_rate_guessed_in_a_bad_moment_is_forgotten_within_seconds(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.pause(0.001)
        with Past(redis_url, prefix) as time:
            for _ in range(3):  # the storm lasts
                time.goes_by(1.5)
                await other.pause(0.001)
            assert time.is_slow
            time.goes_by(12)
            await other.wait_for_permit(1, 5)
            assert not time.is_slow

    _with_two(redis_url, prefix, None, None, talk)


def test_a_guess_that_meets_a_429_on_its_way_up_is_a_limit_and_kept(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.pause(0.001)
        with Past(redis_url, prefix) as time:
            time.goes_by(4)
            await other.pause(0.001)
            time.goes_by(12)
            await other.wait_for_permit(1, 5)
            assert time.is_slow
            before = asyncio.get_running_loop().time()
            for _ in range(3):
                await other.wait_for_permit(1, 5)
            # 85% of the guess, doubled in the second that it had to grow, 85% of that, then seven slow seconds
            assert asyncio.get_running_loop().time() - before >= 2 / (time.guess() * 0.85**2 * 2.2 * 1.01**10)

    _with_two(redis_url, prefix, None, None, talk)


def test_a_limit_that_was_slowed_down_to_next_to_nothing_is_whole_again_within_100_seconds(
    redis_url: str, prefix: str
) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        del other
        with Past(redis_url, prefix) as time:
            for _ in range(60):
                await one.pause(0.001)
                time.goes_by(2)
            time.goes_by(98)
            await one.wait_for_permit(1, 5)
            with redis.Redis.from_url(redis_url) as client:
                assert client.hget(f"{prefix}:model:{MODEL}:adaptation", "factor") is None

    _with_two(redis_url, prefix, 1000.0, None, talk)


async def _start(requests: int, *limiters: ModelLimiter) -> None:
    for number in range(requests):
        await limiters[number % len(limiters)].wait_for_permit(1, 5)


def test_what_was_let_pass_in_the_second_before_a_429_tells_the_limit(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        with Past(redis_url, prefix) as time:
            await one.pause(0.001)
            assert not time.remembers("factor"), "one alone may be bad luck"
            time.goes_by(1.5)
            await _start(60, one, other)
            await other.pause(0.001)
            # moments that a busy machine reserved and then missed count as well
            assert 40 < time.remembers("factor") * 1000 / MARGIN < 120

    _with_two(redis_url, prefix, 1000.0, None, talk)


def test_requests_refused_together_shrink_the_rate_once(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        with Past(redis_url, prefix) as time:
            await one.pause(0.001)
            time.goes_by(1.5)
            await one.pause(0.5)
            before = time.remembers("factor")
            assert before
            for _ in range(5):
                await other.pause(0.5, since_start_s=0.4)
            assert time.remembers("factor") == before

    _with_two(redis_url, prefix, 1000.0, None, talk)


def test_who_finds_the_same_limit_again_keeps_below_it_for_twice_as_long(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        with Past(redis_url, prefix) as time:
            await one.pause(0.001)
            for hold in (10, 20, 40, 60, 60):
                await _start(5, one, other)
                time.goes_by(1.5 if hold == 10 else time.remembers("hold") + 2)
                await other.pause(0.001)
                assert time.remembers("hold") == hold

    _with_two(redis_url, prefix, 1000.0, None, talk)


def test_a_pause_that_proves_too_short_is_followed_by_a_longer_one(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        with Past(redis_url, prefix) as time:
            for least in (0, 2, 4, 8, 8):
                time.goes_by(max(0.0, time.remembers("pause_end") - time.redis_now()))
                await one.pause(0.001)
                assert least - 0.1 <= time.pause_left_s() <= least + 0.1
            del other

    _with_two(redis_url, prefix, 1000.0, None, talk)


def test_who_wakes_up_at_the_first_end_of_a_pause_tells_that_it_was_too_short(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        with Past(redis_url, prefix) as time:
            await one.pause(1)
            first_end = time.remembers("pause_end")
            await other.pause(1.5, since_start_s=0.9)  # it was sent with the first, and refused a little later
            time.goes_by(first_end - time.redis_now())
            await one.pause(0.001)
            assert time.pause_left_s() > 1.5

    _with_two(redis_url, prefix, None, 180_000.0, talk)


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_who_sleeps_through_a_429_waits_as_long_as_it_asks(redis_url: str, prefix: str, rate: float | None) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        del other
        await one.pause(0.3)
        asleep = asyncio.create_task(one.wait_for_permit(1, 5))
        await asyncio.wait({asleep}, timeout=0.1)
        began = asyncio.get_running_loop().time()
        await one.pause(1)
        assert await asleep
        assert asyncio.get_running_loop().time() - began >= 1

    _with_two(redis_url, prefix, rate, None if rate else 600_000.0, talk)


def test_a_clock_of_redis_that_was_set_back_delays_no_request_for_as_long(redis_url: str, prefix: str) -> None:
    async def talk(one: ModelLimiter, other: ModelLimiter) -> None:
        await one.wait_for_permit(1, 5)
        with redis.Redis.from_url(redis_url) as client:
            for name in ("next", "tokens"):
                client.set(f"{prefix}:{name}", client.time()[0] + 1800)
            for name in ("next", "tokens", "pause"):
                client.set(f"{prefix}:model:{MODEL}:{name}", client.time()[0] + 1800)
        await other.wait_for_permit(1, 1)
        await other.settle(1, 2)
        await one.wait_for_permit(1, 1)

    _with_two(redis_url, prefix, 50.0, 60_000.0, talk)
