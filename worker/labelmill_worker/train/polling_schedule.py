"""When to poll a remote job again. Pure functions: no clock, no I/O."""

from __future__ import annotations

from random import Random

from labelmill.contracts.states import TrainingState

MAX_PAUSE_S = 60.0  #: Longest pause between two polls of a job that moves by itself; also the longest countdown.
APPROVAL_PAUSE_S = 600.0  #: While a person decides: often enough to see a job that was cancelled at Mistral.
NO_CHANGE_LIMIT_S = 24 * 3600.0  #: A job without any change for this long has failed.
_UNWATCHED_S = 3600.0
_SHARE_OF_WAIT = 0.1  # polls become rarer with time: a wait is prolonged by a tenth of itself at most


def next_poll_s(state: TrainingState, unchanged_s: float, poll_s: float) -> float:
    """Seconds until the next poll of a job in which nothing has changed for `unchanged_s` seconds."""
    if state is TrainingState.AWAITING_APPROVAL:
        return APPROVAL_PAUSE_S
    return max(min(poll_s, MAX_PAUSE_S), min(MAX_PAUSE_S, unchanged_s * _SHARE_OF_WAIT))


def backoff_s(attempt: int, poll_s: float, rng: Random, *, min_s: float | None = None) -> float:
    """Seconds until the next try after the `attempt`th fault in a row (from 1): full jitter, doubling, at most 60.

    `min_s` is what the other side asked for; it is kept even beyond 60 s.
    """
    ceiling_s = min(MAX_PAUSE_S, poll_s * 2.0 ** min(attempt, 20))
    return max(min_s or 0.0, rng.uniform(0, ceiling_s))


def was_unwatched(due_at: float | None, now: float) -> bool:
    """Whether a poll comes so late that no worker can have run: a change would have been missed, so the wait starts
    anew."""
    return due_at is not None and now - due_at > _UNWATCHED_S


def has_stalled(unchanged_s: float) -> bool:
    """Whether a job has shown no change for so long that it counts as failed."""
    return unchanged_s > NO_CHANGE_LIMIT_S
