"""The limits that Mistral reported to workers in the last minutes, as the fleet's rate limit keeps them in Redis."""

from __future__ import annotations

import redis
from redis.exceptions import RedisError

from labelmill.doctor.checks import Check, ok, warning

_KEYS = "labelmill:limit:*:model:*:reported"  #: See docs/rate-limit.md.
_MAX_SCANS = 100  #: Of a thousand keys each.
_FIELDS = ("requests", "tokens", "month")


def check_limits(client: redis.Redis) -> list[Check]:
    """One check where Mistral reported any limit lately, and Redis shows it."""
    try:
        return _reported(client)
    except (RedisError, ValueError, TypeError):
        return []  # a user that may not list keys: nothing depends on it


def _reported(client: redis.Redis) -> list[Check]:
    told: dict[str, str] = {}
    used_up: list[str] = []
    for key in _keys(client):
        model = key.partition(":model:")[2].removesuffix(":reported")
        requests, tokens, month = (_number(value) for value in client.hmget(key, _FIELDS))
        parts = []
        if requests is not None:
            parts.append(f"{requests:,} requests")
        if tokens is not None:
            parts.append(f"{tokens:,} tokens")
        words = f"{' and '.join(parts)} a minute" if parts else ""
        if month is not None:
            words += f"{', ' if words else ''}{month:,} tokens left of the month"
            if not month:
                used_up.append(model)
        if words:
            told[model] = words
    if not told:
        return []
    summary = "; ".join(f"{model}: {words}" for model, words in sorted(told.items()))
    if used_up:
        remedy = "wait for the next month, or have Mistral raise the limit; then `labelmill retry` the paused batches"
        return [warning("limits", summary, remedy)]
    return [ok("limits", summary)]


def _keys(client: redis.Redis) -> list[str]:
    cursor, found = 0, set()
    for _ in range(_MAX_SCANS):
        cursor, keys = client.scan(cursor, match=_KEYS, count=1000)
        found |= {key if isinstance(key, str) else key.decode("utf-8", "replace") for key in keys}
        if not cursor:
            break
    return sorted(found)


def _number(value: bytes | str | None) -> int | None:
    try:
        return None if value is None else max(0, int(float(value)))
    except (ValueError, OverflowError):
        return None
