"""One rate limit for the fleet, kept in Redis: requests per second and tokens per minute.

Every request gets a moment of its own, spaced evenly, by Redis' clock: no bursts, so a limit that is set right is never
overrun, and nobody polls. A library's check-and-wait limiter was measured against: with 100 waiters they all ask
again and again, and whoever asks at the right moment wins.
"""

from __future__ import annotations

import asyncio
import hashlib

import redis.asyncio
from redis.exceptions import RedisError

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.settings import Settings

#: Keys: {prefix}:next (earliest start of the next request), {prefix}:tokens (moment at which all reserved tokens are
#: paid off), {prefix}:pause (nobody starts before), {prefix}:slow (hash: `factor` of the rate that is used after 429s,
#: and `at`, when it last changed). Moments are seconds by Redis' clock.
#: Arguments: requests per second (0: no limit), tokens per second (0), tokens of this request, longest wait in s.
#: Returns the wait in ms; negative: longer than the longest wait, nothing was reserved.
_RESERVE = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local rate, token_rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local slow = redis.call('HMGET', KEYS[4], 'factor', 'at')
local factor = tonumber(slow[1] or '1')
if factor < 1 and now - tonumber(slow[2]) > 10 then
  factor = math.min(1, factor * 1.1)
  if factor < 1 then redis.call('HSET', KEYS[4], 'factor', factor, 'at', string.format('%.6f', now))
  else redis.call('DEL', KEYS[4]) end
end
local start = now
for i = 1, 3 do
  local at = tonumber(redis.call('GET', KEYS[i]) or '0')
  if at > start then start = at end
end
local wait = start - now
if wait > tonumber(ARGV[4]) then return -math.ceil(wait * 1000) end
local keep = math.ceil((wait + 60) * 1000)
if rate > 0 then
  redis.call('SET', KEYS[1], string.format('%.6f', start + 1 / (rate * factor)), 'PX', keep)
end
if token_rate > 0 then
  local paid_s = tonumber(ARGV[3]) / (token_rate * factor)
  redis.call('SET', KEYS[2], string.format('%.6f', start + paid_s), 'PX', keep + math.ceil(paid_s * 1000))
end
return math.ceil(wait * 1000)
"""

#: Keys: {prefix}:pause, {prefix}:slow. Arguments: seconds. Holds everybody back; a longer pause is never shortened. The
#: rate shrinks by a quarter, once a second however many requests were refused together.
_PAUSE = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local until_at = now + tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or '0') < until_at then
  redis.call('SET', KEYS[1], string.format('%.6f', until_at), 'PX', math.ceil(ARGV[1] * 1000) + 1000)
end
local slow = redis.call('HMGET', KEYS[2], 'factor', 'at')
if now - tonumber(slow[2] or '0') > 1 then
  local factor = math.max(0.05, tonumber(slow[1] or '1') * 0.75)
  redis.call('HSET', KEYS[2], 'factor', factor, 'at', string.format('%.6f', now + tonumber(ARGV[1])))
  redis.call('EXPIRE', KEYS[2], 3600)
end
return 0
"""

#: Requests are spaced a little wider than the limit: what the network delays would otherwise stand beside the next ones
#: in Mistral's window, one too many. 3% of a second is more than a request's start varies on a busy machine.
MARGIN = 1.03

_PAUSE_LOOK_S = 0.25  #: Without a limit, how often a process looks whether another one was told to slow down.


class HeldBack(Exception):
    """The limit allows no start within the longest wait; `wait_s` says when it would."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"held back for {wait_s:.1f} s")
        self.wait_s = wait_s


class FleetLimiter:
    """Spaces the requests of all processes that share a key. Belongs to one event loop.

    A limit that is set too high adapts: every 429 shrinks the rate by a quarter, ten quiet seconds give a tenth back.
    """

    def __init__(
        self, redis_url: str, prefix: str, requests_per_second: float | None, tokens_per_minute: float | None
    ) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            redis_url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=25
        )
        self._keys = [f"{prefix}:next", f"{prefix}:tokens", f"{prefix}:pause", f"{prefix}:slow"]
        self._rate = (requests_per_second or 0.0) / MARGIN
        self._token_rate = (tokens_per_minute or 0.0) / 60 / MARGIN
        self._reserve = self._redis.register_script(_RESERVE)
        self._pause = self._redis.register_script(_PAUSE)
        self._paused_until = 0.0  # by the loop's clock; the fleet's pause as far as this process knows
        self._look_at = 0.0
        self._look: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> FleetLimiter:
        """The limiter of the workspace that the key belongs to. The name in Redis tells nothing about the key."""
        key = settings.mistral_api_key.get_secret_value() if settings.mistral_api_key else ""
        name = hashlib.sha256(f"{settings.mistral_url}\n{key}".encode()).hexdigest()[:12]
        return cls(
            settings.broker_url, f"labelmill:limit:{name}", settings.requests_per_second, settings.tokens_per_minute
        )

    async def wait_turn(self, tokens: int, max_wait_s: float) -> None:
        """Sleep until a request of `tokens` tokens may start.

        Raises HeldBack when that is more than `max_wait_s` away, BrokerUnavailable when Redis is gone: then nobody
        knows what the others send, and nothing is sent.
        """
        if not self._rate and not self._token_rate:
            await self._wait_out_pause(max_wait_s)
            return
        try:
            answer = await self._reserve(keys=self._keys, args=[self._rate, self._token_rate, tokens, max_wait_s])
        except (RedisError, OSError) as error:
            raise BrokerUnavailable("Redis, which holds the shared rate limit, cannot be reached") from error
        wait_s = int(answer) / 1000
        if wait_s < 0:
            raise HeldBack(-wait_s)
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _wait_out_pause(self, max_wait_s: float) -> None:
        """Without a limit there is nothing to reserve, and Redis is not asked for each request: only a pause counts."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + _PAUSE_LOOK_S
            self._look = asyncio.create_task(self._read_pause())
        remaining_s = self._paused_until - now
        if remaining_s > max_wait_s:
            raise HeldBack(remaining_s)
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    async def _read_pause(self) -> None:
        try:
            left_ms = await self._redis.pttl(self._keys[2])
        except (RedisError, OSError):
            return  # no limit is set: without Redis nothing is forbidden
        until = asyncio.get_running_loop().time() + (left_ms - 1000) / 1000  # the key outlives the pause by a second
        self._paused_until = max(self._paused_until, until)

    async def pause(self, seconds: float) -> None:
        """Hold the whole fleet back, as a 429 asks. Raises BrokerUnavailable."""
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        try:
            await self._pause(keys=self._keys[2:], args=[seconds])
        except (RedisError, OSError) as error:
            raise BrokerUnavailable("Redis, which holds the shared rate limit, cannot be reached") from error

    async def close(self) -> None:
        await self._redis.aclose()
