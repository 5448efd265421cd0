"""The arithmetic of mode auto: whether batch jobs keep a deadline, or the rest is sent in realtime. Pure.

Batch jobs cost half, so a batch begins with them unless realtime would be too late a moment later, or earlier jobs say
that one would be late. It moves to realtime when its job is predicted to end after the deadline, and at the latest at

    deadline - 1.2 x realtime duration of the remainder - drain

where *drain* is the time that stopping the jobs and reading their partial results may take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SAFETY = 1.2
DRAIN_S = 30.0  #: To stop jobs, and …
READ_ROWS_PER_S = 5_000.0  #: … to read their results.

#: What a job takes while none has ever ended here: optimistic, for the latest moment keeps the deadline all the same.
PRIOR_S, PRIOR_S_PER_REQUEST = 60.0, 0.01
PRIOR_LATENCY_S = 1.0  #: Of a request in realtime, while none was ever sent.


@dataclass(frozen=True, slots=True)
class PastJob:
    """A batch job that ended well."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PastBatch:
    """A batch that was sent in realtime."""

    requests: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job, made `elapsed_s` ago; None: it is not made yet. `done`: requests that Mistral says are done."""

    requests: int
    done: int = 0
    elapsed_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason`: why it goes on in realtime; None: batch jobs go on, and this is decided anew within `look_again_s`."""

    reason: str | None
    look_again_s: float
    latest_s: float  #: Seconds until the latest moment to move.

    @property
    def is_due(self) -> bool:
        """Whether the rest in realtime needs all the time that is left."""
        return self.latest_s <= 0


def prior_duration_s(requests: int) -> float:
    """What a job of so many requests takes, as long as nothing is known."""
    return PRIOR_S + PRIOR_S_PER_REQUEST * requests


def job_duration_s(requests: int, history: Sequence[PastJob]) -> float:
    """What a job takes: three of four jobs of the past took no longer, in proportion to the prior."""
    if not history:
        return prior_duration_s(requests)
    ratios = sorted(job.seconds / prior_duration_s(job.requests) for job in history)
    return prior_duration_s(requests) * ratios[math.ceil(0.75 * len(ratios)) - 1]


def job_remaining_s(job: JobProgress, history: Sequence[PastJob]) -> float:
    """Seconds until the job ends. Once it takes longer than predicted, it goes on as it did so far; without any request
    done, as long again."""
    predicted_s = job_duration_s(job.requests, history)
    if job.elapsed_s is None:
        return predicted_s
    if job.elapsed_s < predicted_s:
        return predicted_s - job.elapsed_s
    if job.done:
        return job.elapsed_s * max(0, job.requests - job.done) / job.done
    return job.elapsed_s


def realtime_per_s(
    history: Sequence[PastBatch], *, requests_per_s: float, tokens_per_s: float, in_flight: int
) -> float:
    """Requests a second in realtime, within the limits (0: none): as the median of past batches went, else as many as
    one worker has in flight, each of them for a second."""
    measured = sorted(batch.requests / batch.seconds for batch in history if batch.seconds > 0 and batch.requests)
    rate = measured[len(measured) // 2] if measured else in_flight / PRIOR_LATENCY_S
    if requests_per_s:
        rate = min(rate, requests_per_s)
    requests, tokens = sum(batch.requests for batch in history), sum(batch.tokens for batch in history)
    if tokens_per_s and requests and tokens:
        rate = min(rate, tokens_per_s * requests / tokens)
    return rate


def drain_s(rows_at_mistral: int) -> float:
    """What it takes to stop jobs and to read what they answered."""
    return DRAIN_S + rows_at_mistral / READ_ROWS_PER_S


def decide(
    *,
    deadline_s: float,
    realtime_s: float,
    drain: float,
    job: JobProgress,
    history: Sequence[PastJob],
) -> Decision:
    """Whether to move to realtime now. `deadline_s`: from now; `realtime_s`: what the remainder takes in realtime."""
    latest_s = deadline_s - SAFETY * realtime_s - drain
    left = f"{_span(deadline_s)} are left" if deadline_s > 0 else "the deadline has passed"
    if latest_s <= 0:
        reason = f"realtime: {left}, and the rest takes about {_span(realtime_s)} in realtime"
        return Decision(reason, 0.0, latest_s)
    remaining_s = job_remaining_s(job, history)
    is_made = job.elapsed_s is not None
    if remaining_s > deadline_s and (is_made or history):  # without a history, only trying tells what a job takes
        expected = f"{_span(remaining_s)} more" if is_made else f"about {_span(remaining_s)}, as earlier ones did"
        reason = f"realtime: {'its' if is_made else 'a'} batch job is expected to take {expected}, and {left}"
        return Decision(reason, 0.0, latest_s)
    return Decision(None, latest_s, latest_s)


def reason_to_stay(deadline_s: float, job: JobProgress, history: Sequence[PastJob]) -> str:
    """Why batch jobs go on."""
    known = "as earlier ones did" if history else "which is not known yet from earlier ones"
    expected = _span(job_remaining_s(job, history))
    return f"batch: half the price; a batch job takes about {expected}, {known}, and {_span(deadline_s)} are left"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
