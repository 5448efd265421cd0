"""Time for tests of the rate limit: it passes only where everybody waits, and then at once. So a busy machine makes no
permit late, and no test waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.commands.core import AsyncScript

from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.scripts import script

_CLOCK = "local clock = redis.call('TIME')\n"
_GIVEN = "local clock = {math.floor(tonumber(ARGV[#ARGV])), tonumber(ARGV[#ARGV]) % 1 * 1000000}\n"


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Goes on to the next timer when no reply of Redis is under way."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self._began = 1000.0
        self._redis_began = time.time()
        self.calls = 0  #: under way in Redis
        self._selector: Any
        self._wait = self._selector.select
        self._selector.select = self._select

    def time(self) -> float:
        return self._now

    def tick(self) -> None:
        """Redis never runs two scripts within a microsecond."""
        self._now += 2e-6

    def be_busy(self, seconds: float) -> None:
        """As where the process does not get the CPU for so long."""
        self._now += seconds

    def redis_now(self) -> float:
        """What Redis' clock would show: seconds since 1970."""
        return self._redis_began + self._now - self._began

    def _select(self, timeout_s: float | None) -> Any:
        if self.calls or timeout_s is None:
            return self._wait(timeout_s if timeout_s == 0 else None)
        events = self._wait(0)
        if not events:
            self._now += timeout_s
        return events


class _TimedScript:
    """A script of the limiter that is told the time, and does not read Redis' clock."""

    def __init__(self, original: AsyncScript, loop: VirtualTimeLoop) -> None:
        self._original, self._loop = original, loop

    async def __call__(self, *, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        self._loop.calls += 1
        self._loop.tick()
        try:
            return await self._original(keys=keys, args=[*args, f"{self._loop.redis_now():.6f}"])
        finally:
            self._loop.calls -= 1


def in_virtual_time(limiter: FleetLimiter) -> FleetLimiter:
    """The limiter, which belongs to the running loop of virtual time."""
    loop = virtual_loop()
    for name in limiter._scripts:
        assert _CLOCK in script(name)
        timed = limiter._redis.register_script(script(name).replace(_CLOCK, _GIVEN))
        limiter._scripts[name] = _TimedScript(timed, loop)  # type: ignore[assignment]
    return limiter


def virtual_loop() -> VirtualTimeLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def run_in_virtual_time(talk: Callable[[], Awaitable[None]], timeout_s: float = 120) -> None:
    """Run it; what it waits for takes no time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(asyncio.wait_for(talk(), timeout_s))
