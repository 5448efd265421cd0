"""One rate limit for the fleet, kept in Redis: requests per second and tokens per minute.

Every request gets a moment of its own, spaced evenly, by Redis' clock: no bursts, so a limit that is set right is never
overrun, and nobody polls. A library's check-and-wait limiter was measured against: with 100 waiters they all ask
again and again, and whoever asks at the right moment wins.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque

import redis.asyncio
from redis.exceptions import RedisError

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit import scripts as limit_scripts

#: Requests are spaced a little wider than the limit: what a busy machine or the network delays would otherwise stand
#: beside the next ones in Mistral's window, one too many. 4% of a second is more than a start varies.
MARGIN = 1.04

_LATE_S = 0.02  #: A request that wakes up so late gives its moment up: it would stand beside the next ones.
_BLOCK_S = 0.04  #: Moments are reserved for so long ahead, in one call, where they are close together.
_MOST_AT_ONCE = 32
_YIELD_S = 0.5  #: Who yields to another rank looks so often at least whether it must still.
_LOOK_S = 0.25  #: Without a limit, how often a process looks whether another one was told to slow down.
_GONE = "Redis, which holds the shared rate limit, cannot be reached"


class HeldBack(Exception):
    """The limit allows no start within the longest wait; `wait_s` says when it would."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"held back for {wait_s:.1f} s")
        self.wait_s = wait_s


class FleetLimiter:
    """Spaces the requests of all processes that share a key. Belongs to one event loop.

    It adapts where it is set wrong: 429s shrink the rate, quiet seconds let it recover. Where no limit is set, the
    first 429 makes one of what the fleet sent so far.
    """

    def __init__(
        self, redis_url: str, prefix: str, requests_per_second: float | None, tokens_per_minute: float | None
    ) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            **redis_arguments(redis_url), socket_timeout=5, socket_connect_timeout=5, health_check_interval=25
        )
        self._next, self._tokens, self._pause, self._slow, self._sent, self._ranks = (
            f"{prefix}:{name}" for name in ("next", "tokens", "pause", "slow", "sent", "ranks")
        )
        self._rate = (requests_per_second or 0.0) / MARGIN
        self._token_rate = (tokens_per_minute or 0.0) / 60 / MARGIN
        self._reserve_script = self._redis.register_script(limit_scripts.RESERVE)
        self._pause_script = self._redis.register_script(limit_scripts.PAUSE)
        self._settle_script = self._redis.register_script(limit_scripts.SETTLE)
        self._look_script = self._redis.register_script(limit_scripts.LOOK)
        self._moments: deque[float] = deque()  # reserved ahead, by the loop's clock
        self._unstarted = 0  # of the reserved moments, since the last reservation
        self._paused_until = 0.0  # by the loop's clock; the fleet's pause as far as this process knows
        self._learned = False
        self._look_at = 0.0
        self._uncounted = 0  # requests started since the last look
        self._look_task: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> FleetLimiter:
        """The limiter of the workspace that the key belongs to. The name in Redis tells nothing about the key."""
        key = settings.mistral_api_key.get_secret_value() if settings.mistral_api_key else ""
        name = hashlib.sha256(f"{settings.mistral_url}\n{key}".encode()).hexdigest()[:12]
        return cls(
            settings.broker_url, f"labelmill:limit:{name}", settings.requests_per_second, settings.tokens_per_minute
        )

    @property
    def counts_tokens(self) -> bool:
        """Whether requests are limited by their tokens too."""
        return self._token_rate > 0

    def is_open(self) -> bool:
        """Whether a request may start at once without asking anybody; it is counted as started then."""
        if self._rate or self._token_rate or self._learned:
            return False
        now = asyncio.get_running_loop().time()
        if now >= self._look_at or now < self._paused_until:
            return False
        self._uncounted += 1
        return True

    async def wait_turn(self, tokens: int, max_wait_s: float, rank: int | None = None) -> bool:
        """Sleep until a request of `tokens` tokens may start. False: it may not yet, for somewhere in the fleet others
        of a lower `rank` wait, which go first; ask again. Without a rank it goes as it comes.

        Raises HeldBack when that is more than `max_wait_s` away, BrokerUnavailable when Redis is gone: then nobody
        knows what the others send, and nothing is sent.
        """
        if not self._rate and not self._token_rate and not self._learned:
            await self._wait_out_pause(max_wait_s)
            return True
        loop = asyncio.get_running_loop()
        was_late = False
        while True:
            known_pause = self._paused_until
            start = await self._next_moment(tokens, max_wait_s, rank)
            if start is None:
                return False
            if (wait_s := start - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if self._paused_until <= max(known_pause, start + _LATE_S):
                if was_late or loop.time() - start <= _LATE_S:
                    return True
                was_late = True
            # else another request was refused while this one slept: it waits as long as that one
            self._give_up_moments(1)

    async def _next_moment(self, tokens: int, max_wait_s: float, rank: int | None) -> float | None:
        loop = asyncio.get_running_loop()
        while self._moments:
            moment = self._moments.popleft()
            if loop.time() - moment <= _LATE_S and moment >= self._paused_until:
                return moment
            self._unstarted += 1
        count = 1
        if not self._token_rate:
            count = max(1, min(_MOST_AT_ONCE, int(self._rate * _BLOCK_S)))
        keys = [self._next, self._tokens, self._pause, self._slow, self._sent, self._ranks]
        asked_at = loop.time()
        unstarted, self._unstarted = self._unstarted, 0
        try:
            wait_us, spacing_us = await self._reserve_script(
                keys=keys,
                args=[self._rate, self._token_rate, tokens, max_wait_s, count, unstarted, -1 if rank is None else rank],
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(_GONE) from error
        if wait_us < 0:
            self._unstarted += unstarted
            raise HeldBack(-wait_us / 1e6)
        if spacing_us < 0:
            self._unstarted += unstarted
            await asyncio.sleep(min(wait_us / 1e6, _YIELD_S))
            return None
        if not spacing_us and not self._token_rate:
            self._learned = False  # what was learnt is forgotten: nobody was refused for long
        # Redis read its clock between asking and answering: taken as late as it can have been, no moment comes early
        first: float = (loop.time() if wait_us else asked_at) + wait_us / 1e6
        self._moments.extend(first + index * spacing_us / 1e6 for index in range(1, count))
        return first

    def _give_up_moments(self, taken: int = 0) -> None:
        self._unstarted += taken + len(self._moments)
        self._moments.clear()

    async def _wait_out_pause(self, max_wait_s: float) -> None:
        """Without a limit there is nothing to reserve, and Redis is not asked for each request: only a pause counts."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._look_task = asyncio.create_task(self._look())
        remaining_s = self._paused_until - now
        if remaining_s > max_wait_s:
            raise HeldBack(remaining_s)
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)
        self._uncounted += 1

    async def _look(self) -> None:
        count, self._uncounted = self._uncounted, 0
        try:
            left_ms, learned = await self._look_script(keys=[self._pause, self._slow, self._sent], args=[count])
        except (RedisError, OSError):
            return  # no limit is set: without Redis nothing is forbidden
        self._learned = bool(learned)
        if left_ms > 0:
            self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + left_ms / 1000)

    async def pause(self, seconds: float, since_start_s: float = 0.0) -> None:
        """Hold the whole fleet back, as the 429 asks that a request met which started `since_start_s` ago.

        Raises BrokerUnavailable.
        """
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        self._give_up_moments()
        count, self._uncounted = self._uncounted, 0
        try:
            left_ms = await self._pause_script(
                keys=[self._pause, self._slow, self._sent],
                args=[max(seconds, 0.001), self._rate, self._token_rate, count, since_start_s],
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(_GONE) from error
        self._paused_until = max(self._paused_until, loop.time() + left_ms / 1000)
        self._learned = self._learned or not (self._rate or self._token_rate)

    async def settle(self, reserved: int, used: int) -> None:
        """Give back tokens that an answer did not use, or take what it used beyond its reservation."""
        if not self._token_rate or not used or used == reserved:
            return
        try:
            await self._settle_script(keys=[self._tokens], args=[self._token_rate, used - reserved])
        except (RedisError, OSError):
            pass  # the reservation stands, which is the careful side

    async def close(self) -> None:
        await self._redis.aclose()
