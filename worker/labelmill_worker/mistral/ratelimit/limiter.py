"""The rate limit that all workers share, kept in Redis for each model: `docs/rate-limit.md` explains the law.

Every request gets a permit for a time of its own, spaced evenly, by Redis' clock: no bursts, so a limit that is set
right is never exceeded, and no process polls. Check-and-wait limiters of libraries were measured: with 100 waiters all
of them retry repeatedly, and the one that asks at the right time wins.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque

import redis.asyncio
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit.law import LAW
from labelmill_worker.mistral.ratelimit.limits import RateLimits
from labelmill_worker.mistral.ratelimit.scripts import script

LATE_S = 0.02  #: A permit that would be used later than this is returned: its request would start beside the next ones.
_BLOCK_S = 0.04  #: Permits are reserved for so long ahead, in one call, where they are close together.
_YIELD_S = 0.5  #: A process that yields to another rank asks again at least this often.
_CHECK_EVERY_S = 0.25  #: Without a limit, how often a process checks whether another one met a 429.
_GONE = "Redis, which holds the shared rate limit, cannot be reached"


class NoPermitInTime(Exception):
    """The limit allows no start within the longest wait; `wait_s` says when it would."""

    def __init__(self, wait_s: float, model: str | None = None) -> None:
        self.wait_s = wait_s
        self.message = f"requests to {model}" if model else ""
        super().__init__(f"held back for {wait_s:.1f} s")


class FleetLimiter:
    """Has a limiter for each model; all of them stay within the fleet's limit too. Belongs to one event loop."""

    def __init__(self, redis_url: str, prefix: str, limits: RateLimits) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            **redis_arguments(redis_url), socket_timeout=5, socket_connect_timeout=5, health_check_interval=25
        )
        self._scripts = {name: self._redis.register_script(script(name)) for name in _SCRIPTS}
        self._prefix, self._limits = prefix, limits
        self._models: dict[str | None, ModelLimiter] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> FleetLimiter:
        """The limiter of the workspace that the key belongs to. The name in Redis tells nothing about the key."""
        key = settings.mistral_api_key.get_secret_value() if settings.mistral_api_key else ""
        name = hashlib.sha256(f"{settings.mistral_url}\n{key}".encode()).hexdigest()[:12]
        return cls(settings.broker_url, f"labelmill:limit:{name}", RateLimits.from_settings(settings))

    def of(self, model: str | None) -> ModelLimiter:
        """The limiter of one model, by the id that Mistral is asked for. None: of calls that concern no model."""
        if (limiter := self._models.get(model)) is None:
            limiter = self._models[model] = ModelLimiter(self._scripts, self._prefix, self._limits, model)
        return limiter

    async def close(self) -> None:
        await self._redis.aclose()


_SCRIPTS = ("reserve", "refuse", "settle", "check")


class ModelLimiter:
    """Spaces the requests to one model of all processes that share a key.

    It adapts where the limit is set wrong: 429s slow the requests to this model down, and time without one lets them
    recover. Where no limit is set, the first 429 makes one of what the fleet sent so far.
    """

    def __init__(self, scripts: dict[str, AsyncScript], prefix: str, limits: RateLimits, model: str | None) -> None:
        self._scripts, self._model = scripts, model
        self._limit, self._fleet = limits.of(model), limits.fleet
        # the fleet's keys are those of workers that knew no limits of models: both kinds share the fleet's limit
        own = f"{prefix}:control" if model is None else f"{prefix}:model:{model}"
        self._fleet_keys = [f"{prefix}:{name}" for name in ("next", "tokens", "ranks", "booked")]
        self._model_keys = [f"{own}:{name}" for name in ("next", "tokens", "ranks")]
        self._adaptive_keys = [f"{own}:{name}" for name in ("pause", "adaptation", "started")]
        self._permits: deque[float] = deque()  # reserved ahead, by the loop's clock
        self._unused = 0  # of the reserved permits, since the last reservation
        self._paused_until = 0.0  # by the loop's clock; the model's pause as far as this process knows
        self._has_guess = False
        self._check_at = 0.0
        self._uncounted = 0  # requests started since the last check
        self._check_task: asyncio.Task[None] | None = None

    @property
    def counts_tokens(self) -> bool:
        """Whether requests are limited by their tokens too."""
        return self._limit.tokens_per_s > 0

    def is_open(self) -> bool:
        """Whether a request may start at once without asking Redis; it is counted as started then."""
        if self._limit or self._has_guess:
            return False
        now = asyncio.get_running_loop().time()
        if now >= self._check_at or now < self._paused_until:
            return False
        self._uncounted += 1
        return True

    async def wait_for_permit(self, tokens: int, max_wait_s: float, rank: int | None = None) -> bool:
        """Sleep until a request of `tokens` tokens may start. False: it may not yet, for somewhere in the fleet
        requests of a lower `rank` wait, which go first; ask again. Requests without a rank never yield.

        Raises NoPermitInTime when that is more than `max_wait_s` away, BrokerUnavailable when Redis is gone: then no
        process knows what the others send, and nothing is sent.
        """
        if not self._limit and not self._has_guess:
            self._check_if_due()
            await self._wait_out_pause(max_wait_s)
            self._uncounted += 1
            return True
        loop = asyncio.get_running_loop()
        was_late = False
        while True:
            await self._wait_out_pause(max_wait_s)
            known_pause = self._paused_until
            start = await self._next_permit(tokens, max_wait_s, rank)
            if start is None:
                return False
            if (wait_s := start - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if self._paused_until <= max(known_pause, start + LATE_S):
                if was_late or loop.time() - start <= LATE_S:
                    return True
                was_late = True
            # else another request was refused while this one slept: it waits as long as that one
            self._return_permits(1)

    def return_permit(self) -> None:
        """A permit that `wait_for_permit` gave is not used."""
        if self._limit or self._has_guess:
            self._unused += 1
        else:
            self._uncounted -= 1

    async def _next_permit(self, tokens: int, max_wait_s: float, rank: int | None) -> float | None:
        loop = asyncio.get_running_loop()
        while True:
            while self._permits:
                permit = self._permits.popleft()
                if loop.time() - permit <= LATE_S and permit >= self._paused_until:
                    return permit
                self._unused += 1
            count = 1
            if not self._limit.tokens_per_s:
                count = max(1, min(LAW.max_reserved_permits, int(self._limit.requests_per_s * _BLOCK_S)))
            what, wait_s = await self._reserve(tokens, max_wait_s, count, rank)
            if what == b"too far":
                raise NoPermitInTime(wait_s, self._model)
            if what == b"yield":
                await asyncio.sleep(min(wait_s, _YIELD_S))
                return None
            if what == b"reserved":
                return self._permits.popleft()
            self._paused_until = max(self._paused_until, loop.time() + wait_s)
            await self._wait_out_pause(max_wait_s)

    async def _reserve(self, tokens: int, max_wait_s: float, count: int, rank: int | None) -> tuple[bytes, float]:
        """Ask for `count` permits; what was reserved stands in `_permits`. Returns what happened, and the wait."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        unused, self._unused = self._unused, 0
        limits = (
            self._fleet.requests_per_s,
            self._fleet.tokens_per_s,
            self._limit.requests_per_s,
            self._limit.tokens_per_s,
        )
        try:
            what, wait_us, spacing_us = await self._scripts["reserve"](
                keys=[*self._fleet_keys, *self._model_keys, *self._adaptive_keys],
                args=[*limits, tokens, max_wait_s, count, unused, -1 if rank is None else rank],
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(_GONE) from error
        wait_s = wait_us / 1e6
        if what != b"reserved":
            self._unused += unused
            return what, wait_s
        if not spacing_us and not self._limit.tokens_per_s:
            self._has_guess = False  # the guess was dropped: no request was refused for long
        # Redis read its clock between asking and answering: taken as late as it can have been, no permit comes early
        first = (loop.time() if wait_us else asked_at) + wait_s
        self._permits.extend(first + index * spacing_us / 1e6 for index in range(count))
        return what, wait_s

    def _return_permits(self, taken: int = 0) -> None:
        self._unused += taken + len(self._permits)
        self._permits.clear()

    async def _wait_out_pause(self, max_wait_s: float) -> None:
        remaining_s = self._paused_until - asyncio.get_running_loop().time()
        if remaining_s > max_wait_s:
            raise NoPermitInTime(remaining_s, self._model)
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    def _check_if_due(self) -> None:
        """Without a limit there is nothing to reserve, and Redis is not asked for each request: only a pause counts."""
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            self._check_at = now + _CHECK_EVERY_S
            self._check_task = asyncio.create_task(self._check_pause())

    async def _check_pause(self) -> None:
        count, self._uncounted = self._uncounted, 0
        try:
            left_ms, has_guess = await self._scripts["check"](keys=self._adaptive_keys, args=[count])
        except (RedisError, OSError):
            return  # no limit is set: without Redis nothing is forbidden
        self._has_guess = bool(has_guess)
        if left_ms > 0:
            self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + left_ms / 1000)

    async def pause(self, seconds: float, since_start_s: float = 0.0) -> None:
        """Hold the whole fleet's requests to this model back, as the 429 asks that a request met which started
        `since_start_s` ago.

        Raises BrokerUnavailable.
        """
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        self._return_permits()
        count, self._uncounted = self._uncounted, 0
        limit = self._limit
        try:
            left_ms = await self._scripts["refuse"](
                keys=self._adaptive_keys,
                args=[max(seconds, 0.001), limit.requests_per_s, limit.tokens_per_s, count, since_start_s],
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(_GONE) from error
        self._paused_until = max(self._paused_until, loop.time() + left_ms / 1000)
        self._has_guess = self._has_guess or not limit

    async def settle(self, reserved: int, used: int) -> None:
        """Give back tokens that were not used, or take what was used beyond the reservation."""
        if not self.counts_tokens or used == reserved:
            return
        try:
            await self._scripts["settle"](
                keys=[self._fleet_keys[1], self._model_keys[1]],
                args=[self._fleet.tokens_per_s, self._limit.tokens_per_s, used - reserved],
            )
        except (RedisError, OSError):
            pass  # the reservation stands, which is the careful side
