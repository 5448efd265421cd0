"""How fast the emulator answers: latency and a rate limit. Injected faults are in `injection`."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from labelmill_ops.emulator.auth import MISTRAL_PATHS
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.replies import RATE_LIMITED, refusal


@dataclass
class RequestBucket:
    """A token bucket that holds one second's worth of requests, so evenly spaced clients are never refused."""

    requests_per_second: float
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Start full."""
        self._capacity = max(1.0, self.requests_per_second)
        self._left, self._filled_at = self._capacity, self.clock()

    def wait_s(self) -> float:
        """Take a request. Returns 0, or the seconds until one would be allowed (then nothing was taken)."""
        now = self.clock()
        self._left = min(self._capacity, self._left + (now - self._filled_at) * self.requests_per_second)
        self._filled_at = now
        if self._left < 1:
            return (1 - self._left) / self.requests_per_second
        self._left -= 1
        return 0.0


def rate_limit(config: EmulatorConfig) -> Middleware:
    """Return the middleware that answers 429 with `Retry-After` (whole seconds) above the limit."""
    bucket = RequestBucket(config.requests_per_second) if config.requests_per_second else None

    @web.middleware
    async def limit_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
        if bucket is not None and request.path.startswith(MISTRAL_PATHS):
            wait_s = bucket.wait_s()
            if wait_s:
                headers = {"Retry-After": str(math.ceil(wait_s))}
                raise refusal(429, "Rate limit exceeded", RATE_LIMITED, headers)
        return await handler(request)

    return limit_requests


def latency(config: EmulatorConfig) -> Middleware:
    """Return the middleware that delays every answer by the configured latency."""

    @web.middleware
    async def delay_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if config.latency_s and request.path.startswith(MISTRAL_PATHS):
            await asyncio.sleep(config.latency_s)
        return await handler(request)

    return delay_answer
