"""When a remote batch is looked at again. Pure."""

from __future__ import annotations

import random

LONGEST_PAUSE_S = 60.0  #: Also the longest countdown of a message.
_SHARE_OF_WAIT = 0.1  #: Polls become rarer with time: a wait is prolonged by a tenth of itself at most.
_FIRST_PAUSE = 5.0  #: Polling intervals, before rows that failed for the first time are sent again.
_MAX_RETRY_PAUSE_S = 600.0


def next_poll_s(waited_s: float, poll_s: float) -> float:
    """Before the next poll of a job that has been waited for so long."""
    return max(min(poll_s, LONGEST_PAUSE_S), min(LONGEST_PAUSE_S, waited_s * _SHARE_OF_WAIT))


def retry_pause_s(tries: int, poll_s: float) -> float:
    """Before rows are sent again that failed so often."""
    return min(_MAX_RETRY_PAUSE_S, _FIRST_PAUSE * poll_s * 2.0 ** (min(tries, 10) - 1)) if tries else 0.0


def backoff_s(attempt: int, poll_s: float, rng: random.Random, *, min_s: float | None = None) -> float:
    """Before a step is taken again that met its `attempt`th fault in a row: full jitter, doubling."""
    ceiling_s = min(LONGEST_PAUSE_S, poll_s * 2.0 ** min(attempt, 20))
    return max(min_s or 0.0, rng.uniform(0, ceiling_s), 0.05)
