"""What Mistral told of limits lately, as the fleet's limiter keeps it in Redis."""

from __future__ import annotations

import redis
from redis.exceptions import RedisError

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.reported_limits import KnownLimits
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit.limiter import prefix_of

_FIELDS = ("at", "requests", "tokens", "month")


def read_reported(settings: Settings) -> dict[str, KnownLimits]:
    """Of the models that were asked in the last two minutes and of which a limit was told. Raises BrokerUnavailable."""
    prefix = prefix_of(settings)
    try:
        with redis.Redis.from_url(
            **redis_arguments(settings.broker_url), socket_timeout=5, socket_connect_timeout=5
        ) as client:
            models = sorted(name.decode() for name in client.smembers(f"{prefix}:models"))
            with client.pipeline(transaction=False) as pipeline:
                for model in models:
                    pipeline.hmget(f"{prefix}:model:{model}:reported", _FIELDS)
                found = pipeline.execute()
    except (RedisError, OSError) as error:
        raise BrokerUnavailable("Redis cannot be reached") from error
    told = {}
    for model, (at, *limits) in zip(models, found, strict=True):
        numbers = [None if value is None else int(float(value)) for value in limits]
        if at is not None and any(number is not None for number in numbers):
            told[model] = KnownLimits(float(at), *numbers)
    return told
