"""Which requests are admitted, and that none waits for what cannot come. In virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import redis
from virtual_time import in_virtual_time, run_in_virtual_time, virtual_loop

from labelmill_worker.inference import admission as admission_module
from labelmill_worker.inference.admission import Admission, Flow
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.limits import Limit, RateLimits
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime

FLOW = Flow(1, 3)


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "time", SimpleNamespace(monotonic=_now))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _admission(slots: int) -> Admission:
    limiter = FleetLimiter("redis://127.0.0.1:1/0", "test", RateLimits())  # without a limit Redis is not asked
    return Admission(limiter, slots)


async def _everybody_waits() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_who_holds_a_slot_and_tries_again_does_not_wait_behind_those_who_need_one() -> None:
    async def story() -> None:
        admission = _admission(1)
        far = _now() + 60
        assert await admission.acquire(FLOW, 1, far)
        waiting = asyncio.create_task(admission.acquire(FLOW, 1, far))
        await asyncio.sleep(0)  # it stands in line
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            assert await admission.reacquire(FLOW, 1, far)
            admission.release()
            assert await waiting

    run_in_virtual_time(story)


def test_who_waits_for_a_slot_is_let_go_when_its_time_is_up() -> None:
    async def story() -> None:
        admission = _admission(1)
        assert await admission.acquire(FLOW, 1, _now() + 60)
        async with asyncio.timeout(30):
            assert not await admission.acquire(FLOW, 1, _now() + 0.05)
        assert admission.free == 0

    run_in_virtual_time(story)


def test_the_first_chunk_of_a_batch_goes_first_and_takes_all_that_is_free() -> None:
    async def story() -> None:
        admission = _admission(3)
        order: list[int] = []

        async def chunk(number: int, requests: int) -> None:
            flow = Flow(1, 3, number)
            for _ in range(requests):
                assert await admission.acquire(flow, 1, _now() + 60)
                order.append(number)

        async with asyncio.timeout(30), asyncio.TaskGroup() as chunks:
            for _ in range(3):
                assert await admission.acquire(FLOW, 1, _now() + 60)
            for number in (7, 5, 6):
                chunks.create_task(chunk(number, 3))
            for _ in range(3):
                await _everybody_waits()
                admission.release(3)
        assert order == [5, 5, 5, 6, 6, 6, 7, 7, 7]

    run_in_virtual_time(story)


def test_batches_take_turns_whatever_their_chunks() -> None:
    async def story() -> None:
        admission = _admission(2)
        order: list[int] = []

        async def batch(number: int) -> None:
            for _ in range(3):
                assert await admission.acquire(Flow(number, 3, number), 1, _now() + 60)
                order.append(number)

        async with asyncio.timeout(30), asyncio.TaskGroup() as batches:
            for _ in range(2):
                assert await admission.acquire(FLOW, 1, _now() + 60)
            for number in (2, 1):
                batches.create_task(batch(number))
            for _ in range(3):
                await _everybody_waits()
                admission.release(2)
        assert [sorted(pair) for pair in zip(order[::2], order[1::2], strict=True)] == [[1, 2]] * 3

    run_in_virtual_time(story)


def test_who_yields_to_another_process_lets_a_better_rank_of_its_own_pass(redis_url: str) -> None:
    async def story() -> None:
        urgent, normal = Flow(1, 0), Flow(2, 3)
        elsewhere, limiter = (
            in_virtual_time(FleetLimiter(redis_url, "test:admission", RateLimits(Limit.of(5, None)))) for _ in range(2)
        )
        admission, far = Admission(limiter, 10), _now() + 60
        order: list[Flow] = []

        async def start(flow: Flow) -> None:
            assert await admission.acquire(flow, 1, far)
            order.append(flow)

        try:
            assert await elsewhere.of("").wait_for_permit(1, 5, 0)
            assert await elsewhere.of("").wait_for_permit(1, 5, 0)
            await start(normal)  # one of five is for the others
            late = asyncio.create_task(start(normal))
            await _everybody_waits()
            await asyncio.wait_for(asyncio.gather(start(urgent), late), 10)
            assert order == [normal, urgent, normal]
        finally:
            for one in (elsewhere, limiter):
                await one.close()

    run_in_virtual_time(story)


def test_a_model_that_is_held_back_holds_up_no_other_model(redis_url: str) -> None:
    async def story() -> None:
        limits = RateLimits(Limit.of(100, None), {"slow": Limit.of(0.5, None)})
        limiter = in_virtual_time(FleetLimiter(redis_url, "test:two-models", limits))
        admission, far = Admission(limiter, 10), _now() + 60
        slow, fast = Flow(1, 0, model="slow"), Flow(2, 3, model="fast")
        try:
            assert await admission.acquire(slow, 1, far)
            waits = asyncio.create_task(admission.acquire(slow, 1, far))  # for two seconds
            async with asyncio.timeout(1.5):
                for _ in range(5):
                    assert await admission.acquire(fast, 1, far)
            assert not waits.done()
            assert admission.free == 4
            assert await waits
        finally:
            await limiter.close()

    run_in_virtual_time(story)


def test_a_permit_that_finds_no_slot_is_not_used_late(redis_url: str) -> None:
    async def story() -> None:
        limiter = in_virtual_time(FleetLimiter(redis_url, "test:no-slot", RateLimits(Limit.of(10, None))))
        admission, far = Admission(limiter, 1), _now() + 60
        try:
            assert await admission.acquire(FLOW, 1, far)
            admission.release()
            waits = asyncio.create_task(admission.acquire(FLOW, 1, far))
            await _everybody_waits()
            assert admission.try_acquire_slot()
            await asyncio.sleep(0.3)  # the permit comes meanwhile
            assert not waits.done()
            admission.release()
            assert await waits
            assert admission.free == 0
            with redis.Redis.from_url(redis_url) as client:
                assert float(client.get("test:no-slot:next") or 0) > virtual_loop().redis_now(), "by a permit of later"
        finally:
            await limiter.close()

    run_in_virtual_time(story)


def test_a_request_that_cannot_start_before_its_time_is_up_takes_no_permit_from_others(redis_url: str) -> None:
    async def story() -> None:
        limiter = in_virtual_time(FleetLimiter(redis_url, "test:end-of-a-slice", RateLimits(Limit.of(1, None))))
        admission, far = Admission(limiter, 10), _now() + 60
        try:
            assert await admission.acquire(FLOW, 1, far)
            with redis.Redis.from_url(redis_url) as client:
                next_at = client.get("test:end-of-a-slice:next")
                assert next_at is not None
                with pytest.raises(NoPermitInTime) as refused:
                    await admission.acquire(FLOW, 1, _now() + 0.2)
                assert 0.2 < refused.value.wait_s < 1.1
                assert client.get("test:end-of-a-slice:next") == next_at
        finally:
            await limiter.close()

    run_in_virtual_time(story)
