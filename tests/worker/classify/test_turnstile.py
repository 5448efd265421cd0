"""Who is let in, and that nobody waits for what nobody can give."""

from __future__ import annotations

import asyncio
import time

from labelmill_worker.classify.turnstile import Lane, Turnstile
from labelmill_worker.mistral.limiter import FleetLimiter

LANE = Lane(1, 3)


def _turnstile(slots: int) -> Turnstile:
    limiter = FleetLimiter("redis://127.0.0.1:1/0", "test", None, None)  # without a limit Redis is not asked
    return Turnstile(limiter, slots)


def test_who_holds_a_slot_and_tries_again_does_not_wait_behind_those_who_need_one() -> None:
    async def story() -> None:
        turnstile = _turnstile(1)
        far = time.monotonic() + 60
        assert await turnstile.enter(LANE, 1, far)
        waiting = asyncio.create_task(turnstile.enter(LANE, 1, far))
        await asyncio.sleep(0)  # it stands in line
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await turnstile.again(LANE, 1, far)
            turnstile.leave()
            assert await waiting

    asyncio.run(story())


def test_who_waits_for_a_slot_is_let_go_when_its_time_is_up() -> None:
    async def story() -> None:
        turnstile = _turnstile(1)
        assert await turnstile.enter(LANE, 1, time.monotonic() + 60)
        async with asyncio.timeout(5):
            assert not await turnstile.enter(LANE, 1, time.monotonic() + 0.05)
        assert turnstile.free == 0

    asyncio.run(story())
