"""From the headers of an answer to the limits that they tell. Every header is optional, and none is trusted."""

from __future__ import annotations

import math
from collections.abc import Callable

from labelmill.contracts.reported_limits import ReportedLimits

_MAX_LIMIT = 10**12  #: Above any limit: a larger number is a fault of the server or of what stands before it.

#: Names of a limit, and of what is left of it. The newest first; those by size count tokens, until early 2026.
_REQUESTS = (("x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute"),)
_TOKENS = (
    ("x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute"),
    ("x-ratelimitbysize-limit-minute", "x-ratelimitbysize-remaining-minute"),
    ("ratelimitbysize-limit", "ratelimitbysize-remaining"),
)
_TOKENS_OF_FIVE_MINUTES = (("x-ratelimit-limit-tokens-5-minute", "x-ratelimit-remaining-tokens-5-minute"),)
_TOKENS_OF_MONTH = (
    ("x-ratelimit-limit-tokens-month", "x-ratelimit-remaining-tokens-month"),
    ("x-ratelimitbysize-limit-month", "x-ratelimitbysize-remaining-month"),
)
GetHeader = Callable[[str], str | None]


def read_limits(header: GetHeader) -> ReportedLimits | None:
    """The limits that an answer tells; None: it tells none. `header` raises ValueError for bytes that are no text."""
    requests = _first(header, _REQUESTS)
    tokens = _first(header, _TOKENS)
    of_five, left_of_five = _first(header, _TOKENS_OF_FIVE_MINUTES)
    month = _first(header, _TOKENS_OF_MONTH)
    if month[0] is None:  # what is left says enough
        left_of_month = (_number(header, left_name) for _, left_name in _TOKENS_OF_MONTH)
        month = (None, next((left for left in left_of_month if left is not None), None))
    if of_five is not None and (tokens[0] is None or of_five < 5 * tokens[0]):
        # the mean that it allows: what is left of it in this minute is the lower of both
        mean = -(-of_five // 5)  # rounded up: only a limit of 0 forbids all
        tokens = (mean, None if left_of_five is None else min(left_of_five, mean))
    if requests[0] is None and tokens[0] is None and month == (None, None):
        return None
    return ReportedLimits(*requests, *tokens, *month)


def _first(header: GetHeader, families: tuple[tuple[str, str], ...]) -> tuple[int | None, int | None]:
    for limit_name, left_name in families:
        limit = _number(header, limit_name)
        if limit is not None:
            left = _number(header, left_name)
            return limit, left if left is not None and left <= limit else None
    return None, None


def _number(header: GetHeader, name: str) -> int | None:
    try:
        text = header(name)
        number = float(text) if text and len(text) <= 20 else -1.0
    except ValueError:
        return None
    return math.ceil(number) if 0 <= number <= _MAX_LIMIT else None  # not a number compares false
