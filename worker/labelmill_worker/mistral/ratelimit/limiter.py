"""The rate limit that all workers share, kept in Redis for each model: `docs/rate-limit.md` explains the law.

Every request gets a permit for a time of its own, spaced evenly, by Redis' clock: no bursts, so a limit that is set
right is never exceeded, and no process polls. Check-and-wait limiters of libraries were measured: with 100 waiters all
of them retry repeatedly, and the one that asks at the right time wins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import redis.asyncio

from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit.limits import RateLimits
from labelmill_worker.mistral.ratelimit.model_limiter import ModelLimiter
from labelmill_worker.mistral.ratelimit.scripts import script

_SCRIPTS = ("reserve", "refuse", "settle", "check", "report", "forget")


def prefix_of(settings: Settings) -> str:
    """What all keys in Redis begin with for the workspace that the key belongs to. It tells nothing about the key."""
    key = settings.mistral_api_key.get_secret_value() if settings.mistral_api_key else ""
    digest = hashlib.sha256(f"{settings.mistral_url}\n{key}".encode()).hexdigest()
    return f"labelmill:limit:{digest[:12]}"


class FleetLimiter:
    """Has a limiter for each model; all of them stay within the fleet's limit too. Belongs to one event loop."""

    def __init__(self, redis_url: str, prefix: str, limits: RateLimits, *, first_alone: bool = False) -> None:
        """`first_alone`: the first request to a model waits for no other, and all others for its answer, which may
        tell the model's limits."""
        self._redis = redis.asyncio.Redis.from_url(
            **redis_arguments(redis_url), socket_timeout=5, socket_connect_timeout=5, health_check_interval=25
        )
        self._scripts = {name: self._redis.register_script(script(name)) for name in _SCRIPTS}
        self._prefix, self._limits, self._first_alone = prefix, limits, first_alone
        self._models: dict[str | None, ModelLimiter] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> FleetLimiter:
        """The limiter of the workspace that the key belongs to."""
        limits = RateLimits.from_settings(settings)
        return cls(settings.broker_url, prefix_of(settings), limits, first_alone=True)

    def of(self, model: str | None) -> ModelLimiter:
        """The limiter of one model, by the id that Mistral is asked for. None: of calls that concern no model."""
        if (limiter := self._models.get(model)) is None:
            first_alone = self._first_alone and model is not None
            limiter = self._models[model] = ModelLimiter(
                self._scripts, self._prefix, self._limits, model, first_alone=first_alone
            )
        return limiter

    def also_called(self, model: str, names: Iterable[str]) -> None:
        """A model may be asked by these names too: what is set for them binds it."""
        self.of(model).bind(self._limits.of(model, names))

    async def close(self) -> None:
        await self._redis.aclose()
