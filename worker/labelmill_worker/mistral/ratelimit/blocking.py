"""The fleet's rate limit for the rare calls of the control plane, which run in threads and not on the event loop. They
concern no model, so only the limits of the whole fleet bind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from labelmill.contracts.errors import RateLimited
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime

MAX_WAIT_S = 5.0  #: A task that must wait longer ends, and polls again later.


def no_gate() -> None:
    """No limit."""


def fleet_gate(settings: Settings) -> Callable[[], None]:
    """A wait until a request may start. It raises RateLimited when that is far off, BrokerUnavailable without Redis."""
    if not settings.requests_per_second and not settings.tokens_per_minute:
        return no_gate

    async def wait_for_permit() -> None:
        # A limiter belongs to one event loop and each call here has its own: the calls are rare, a connection is cheap.
        limiter = FleetLimiter.from_settings(settings)
        try:
            await limiter.of(None).wait_for_permit(0, MAX_WAIT_S)
        except NoPermitInTime as refusal:
            raise RateLimited("the fleet's rate limit allows no request now", refusal.wait_s) from refusal
        finally:
            await limiter.close()

    def gate() -> None:
        asyncio.run(wait_for_permit())

    return gate
