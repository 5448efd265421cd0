"""Limits of single models beside the fleet's, against a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from importlib.resources import files

import pytest
import redis
from virtual_time import in_virtual_time, run_in_virtual_time, virtual_loop

from labelmill.core.settings import load_settings
from labelmill_worker.mistral.ratelimit import blocking
from labelmill_worker.mistral.ratelimit.law import ControlLaw
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.limits import MARGIN, Limit, RateLimits
from labelmill_worker.mistral.ratelimit.model_limiter import ModelLimiter, NoPermitInTime

_numbers = itertools.count()
NO_LIMIT = Limit()
SLOW, FAST = "mistral-medium-latest", "mistral-embed"


@pytest.fixture
def prefix() -> str:
    return f"test:models:{next(_numbers)}"


def _with(url: str, prefix: str, limits: RateLimits, talk: Callable[[FleetLimiter], Awaitable[None]]) -> None:
    async def run() -> None:
        limiter = in_virtual_time(FleetLimiter(url, prefix, limits))
        try:
            await talk(limiter)
        finally:
            await limiter.close()

    run_in_virtual_time(run)


async def _seconds(limiter: ModelLimiter, requests: int, tokens: int = 1) -> float:
    """How long so many requests take to start."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(requests):
        assert await limiter.wait_for_permit(tokens, 5)
    return loop.time() - began


@pytest.mark.parametrize("fleet", [NO_LIMIT, Limit.of(200, None), Limit.of(None, 6_000_000)])
def test_a_429_for_one_model_does_not_slow_another(redis_url: str, prefix: str, fleet: Limit) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        slow, fast = limiter.of(SLOW), limiter.of(FAST)
        await _seconds(slow, 1)
        await slow.pause(30)
        await slow.pause(30, since_start_s=0.0)
        with pytest.raises(NoPermitInTime, match="held back for") as held:
            await slow.wait_for_permit(1, 2)
        assert held.value.message == f"requests to {SLOW}"
        assert await _seconds(fast, 20) < 2

    _with(redis_url, prefix, RateLimits(fleet), talk)


def test_another_process_hears_of_the_pause_of_that_model_alone(redis_url: str, prefix: str) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        other = in_virtual_time(FleetLimiter(redis_url, prefix, RateLimits(Limit.of(100, None))))
        try:
            await limiter.of(SLOW).pause(30)
            with pytest.raises(NoPermitInTime):
                await other.of(SLOW).wait_for_permit(1, 2)
            assert await other.of(FAST).wait_for_permit(1, 2)
        finally:
            await other.close()

    _with(redis_url, prefix, RateLimits(Limit.of(100, None)), talk)


def test_a_model_that_waits_for_its_own_limit_takes_no_time_of_the_fleets(redis_url: str, prefix: str) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        slow, fast = limiter.of(SLOW), limiter.of(FAST)
        await _seconds(slow, 1)
        waiting = asyncio.create_task(_seconds(slow, 1))  # for two seconds
        await asyncio.sleep(0.05)
        assert await _seconds(fast, 50) < 1.5
        assert await waiting > 1.5

    _with(redis_url, prefix, RateLimits(Limit.of(100, None), {SLOW: Limit.of(0.5, None)}), talk)


def test_all_models_together_stay_within_the_fleets_limit(redis_url: str, prefix: str) -> None:
    """The control plane's calls, which concern no model, count as well."""
    rate, each = 50.0, 12

    async def talk(limiter: FleetLimiter) -> None:
        loop = asyncio.get_running_loop()
        starts: list[float] = []

        async def start(model: str | None) -> None:
            for _ in range(each):
                assert await limiter.of(model).wait_for_permit(1, 5)
                starts.append(loop.time())

        began = loop.time()
        await asyncio.gather(start(SLOW), start(FAST), start(None))
        for number, moment in enumerate(sorted(starts)):
            assert moment - began >= MARGIN * number / rate - 0.005, f"start {number} came early"

    _with(redis_url, prefix, RateLimits(Limit.of(rate, None), {FAST: Limit.of(1000, None)}), talk)


def test_models_that_wait_for_their_own_limits_keep_within_the_fleets_whenever_they_start(
    redis_url: str, prefix: str
) -> None:
    """Ten processes wait for one model, while another takes all that is left of the fleet's limit."""
    limits = RateLimits(Limit.of(20, None), {SLOW: Limit.of(5, None)})
    starts: list[float] = []

    async def talk(limiter: FleetLimiter) -> None:
        loop = asyncio.get_running_loop()
        others = [in_virtual_time(FleetLimiter(redis_url, prefix, limits)) for _ in range(10)]
        until = loop.time() + 4

        async def start(model: ModelLimiter, most: int) -> None:
            for _ in range(most):
                if loop.time() > until:
                    break
                assert await model.wait_for_permit(1, 5)
                starts.append(loop.time())

        try:
            slow = [start(other.of(SLOW), 1) for other in others]
            await asyncio.gather(*slow, start(limiter.of(FAST), 1000))
        finally:
            for other in others:
                await other.close()

    _with(redis_url, prefix, limits, talk)
    starts.sort()
    in_a_second = [sum(first <= start < first + 1 for start in starts) for first in starts]
    assert max(in_a_second) <= 20
    assert sum(start < starts[0] + 3 for start in starts) >= 50, "nor is much of the limit left unused"


@pytest.mark.parametrize("fleet", [NO_LIMIT, Limit.of(1000, None)])
def test_a_model_has_its_own_limit_below_the_fleets(redis_url: str, prefix: str, fleet: Limit) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        assert await _seconds(limiter.of(SLOW), 5) >= 4 * MARGIN / 10 - 0.005
        assert await _seconds(limiter.of(FAST), 5) < 0.2

    _with(redis_url, prefix, RateLimits(fleet, {SLOW: Limit.of(10, None)}), talk)


def test_tokens_are_limited_for_a_model_and_for_the_fleet(redis_url: str, prefix: str) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        slow, fast = limiter.of(SLOW), limiter.of(FAST)
        await slow.wait_for_permit(100, 5)  # one second of its own limit, a tenth of one of the fleet's
        await fast.wait_for_permit(1000, 5)  # one of the fleet's
        waits: Mapping[ModelLimiter, tuple[float, float]] = {slow: (0.6, 1.2), fast: (0.6, 1.2)}
        for model, (shortest, longest) in waits.items():
            with pytest.raises(NoPermitInTime) as held:
                await model.wait_for_permit(1, 0.1)
            assert shortest < held.value.wait_s < longest
        await slow.settle(100, 0)  # nothing was used: given back to both
        await fast.settle(1000, 0)
        assert await slow.wait_for_permit(1, 0.1)
        assert await fast.wait_for_permit(1, 0.1)

    _with(redis_url, prefix, RateLimits(Limit.of(None, 60_000), {SLOW: Limit.of(None, 6_000)}), talk)


def test_a_high_rank_that_waits_for_its_model_leaves_the_fleets_permits_to_others(redis_url: str, prefix: str) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        slow, fast = limiter.of(SLOW), limiter.of(FAST)
        await slow.wait_for_permit(1, 5, 0)
        await asyncio.sleep(0.6)  # that one counted for all
        waiting = asyncio.create_task(slow.wait_for_permit(1, 5, 0))
        await asyncio.sleep(0.02)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(30):
            while not await fast.wait_for_permit(1, 5, 3):
                pass
        assert loop.time() - began < 1.5, "a fifth would take three seconds"
        assert await waiting

    _with(redis_url, prefix, RateLimits(Limit.of(50, None), {SLOW: Limit.of(0.5, None)}), talk)


def test_the_fleets_limit_is_shared_with_workers_that_know_no_limits_of_models(redis_url: str, prefix: str) -> None:
    """Both kinds run side by side during an upgrade. The older ones keep the time of the next permit in this key."""

    async def talk(limiter: FleetLimiter) -> None:
        with redis.Redis.from_url(redis_url) as client:
            now = virtual_loop().redis_now()
            client.set(f"{prefix}:next", f"{now + 3:.6f}", px=60_000)
            with pytest.raises(NoPermitInTime) as held:
                await limiter.of(FAST).wait_for_permit(1, 1)
            assert 2 < held.value.wait_s <= 3
            client.delete(f"{prefix}:next")
            await limiter.of(FAST).wait_for_permit(1, 1)
            assert float(client.get(f"{prefix}:next") or 0) > now

    _with(redis_url, prefix, RateLimits(Limit.of(10, None)), talk)


def test_a_permit_that_was_returned_does_not_count_as_sent(redis_url: str, prefix: str) -> None:
    async def talk(limiter: FleetLimiter) -> None:
        model = limiter.of(FAST)
        for _ in range(4):
            await model.wait_for_permit(1, 5)
        for _ in range(3):
            model.return_permit(1)
        await model.wait_for_permit(1, 5)
        with redis.Redis.from_url(redis_url) as client:
            counted = [int(slot.split(b":")[1]) for slot in client.hvals(f"{prefix}:model:{FAST}:started")]
        assert sum(counted) == 2

    _with(redis_url, prefix, RateLimits(Limit.of(20, None)), talk)


def test_calls_of_the_control_plane_are_bound_by_the_fleets_limits_alone() -> None:
    def gate(**limits: object) -> Callable[[], None]:
        return blocking.fleet_gate(load_settings(**limits))

    assert gate(model_limits={FAST: {"requests_per_minute": 1}}) is blocking.no_gate
    assert gate(tokens_per_minute=1000) is not blocking.no_gate


def test_limits_are_read_from_the_settings() -> None:
    settings = load_settings(
        requests_per_second=2, model_limits={FAST: {"requests_per_minute": 60, "tokens_per_minute": 6000}}
    )
    limits = RateLimits.from_settings(settings)
    assert limits.of(FAST) == Limit(1 / MARGIN, 100 / MARGIN)
    assert limits.of(SLOW) == limits.of(None) == limits.fleet == Limit(2 / MARGIN, 0)


def test_a_limit_binds_a_model_by_each_of_its_names_and_the_lowest_counts(redis_url: str, prefix: str) -> None:
    limits = RateLimits(models={SLOW: Limit.of(10, None), "mistral-medium-3": Limit.of(20, 600)})

    async def talk(limiter: FleetLimiter) -> None:
        dated = limiter.of("mistral-medium-3-5")
        assert await _seconds(dated, 20) < 1, "nothing is set for this name"
        limiter.also_called("mistral-medium-3-5", ["mistral-medium-3-5", SLOW, "mistral-medium-3"])
        assert await _seconds(dated, 6) > 0.45

    _with(redis_url, prefix, limits, talk)
    assert limits.of("mistral-medium-3-5", [SLOW, "mistral-medium-3"]) == Limit(10 / MARGIN, 10 / MARGIN)


def test_the_scripts_use_every_number_of_the_law_and_no_other() -> None:
    folder = files("labelmill_worker.mistral.ratelimit") / "lua"
    text = "".join(path.read_text("utf-8") for path in folder.iterdir())
    code = re.sub(r"--[^\n]*", "", text)
    assert set(re.findall(r"LAW\.(\w+)", code)) == {field.name for field in fields(ControlLaw)}
    numbers = set(re.findall(r"(?<![\w.\[%])\d+(?:\.\d+)?(?![\w\]])", code))
    assert numbers <= {"0", "1", "2", "1000", "1000000"}, "1000 and 1000000 change units"
