"""Limits of single models, as Mistral has them: requests and tokens in a sliding minute, and tokens of a month. Each
answer tells them in its headers; a 429 comes without `Retry-After`."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from labelmill_ops.emulator.limit_option import ModelLimit
from labelmill_ops.emulator.replies import RATE_LIMITED, refusal

ANY_MODEL = "*"
WINDOW_S = 60.0


@dataclass
class _Use:
    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    tokens_of_minute: int = 0
    tokens_of_month: int = 0

    def forget_before(self, at: float) -> None:
        while self.requests and self.requests[0] <= at:
            self.requests.popleft()
        while self.tokens and self.tokens[0][0] <= at:
            self.tokens_of_minute -= self.tokens.popleft()[1]


class ModelWindows:
    """What was used of each model's limits."""

    def __init__(self, limits: Mapping[str, ModelLimit], clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing used."""
        self._limits, self._clock = limits, clock
        self._used: defaultdict[str, _Use] = defaultdict(_Use)

    def admit(self, model: object) -> None:
        """Count a request. Raises RefusedError where a limit is used up; nothing is counted then."""
        limit = self._limit_of(model)
        if limit is None:
            return
        use = self._used[str(model)]
        now = self._clock()
        use.forget_before(now - WINDOW_S)
        is_free = (
            _has_room(len(use.requests), limit.requests_per_minute)
            and _has_room(use.tokens_of_minute, limit.tokens_per_minute)
            and _has_room(use.tokens_of_month, limit.tokens_per_month)
        )
        if not is_free:
            raise refusal(429, "Rate limit exceeded", RATE_LIMITED, self._headers(limit, use))
        use.requests.append(now)

    def answered(self, model: object, tokens: int) -> dict[str, str]:
        """Count the tokens of a request that was admitted. Returns the headers of its answer."""
        limit = self._limit_of(model)
        if limit is None:
            return {}
        use = self._used[str(model)]
        use.tokens.append((self._clock(), tokens))
        use.tokens_of_minute += tokens
        use.tokens_of_month += tokens
        return {**self._headers(limit, use), "x-ratelimit-tokens-query-cost": str(tokens)}

    def _limit_of(self, model: object) -> ModelLimit | None:
        return self._limits.get(model) or self._limits.get(ANY_MODEL) if isinstance(model, str) else None

    def _headers(self, limit: ModelLimit, use: _Use) -> dict[str, str]:
        told = {
            "req-minute": (limit.requests_per_minute, len(use.requests)),
            "tokens-minute": (limit.tokens_per_minute, use.tokens_of_minute),
            "tokens-month": (limit.tokens_per_month, use.tokens_of_month),
        }
        headers = {}
        for name, (allowed, used) in told.items():
            if allowed is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(allowed)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, allowed - used))
        return headers


def _has_room(used: int, allowed: int | None) -> bool:
    return allowed is None or used < allowed


MODEL_WINDOWS = web.AppKey("model windows", ModelWindows)
