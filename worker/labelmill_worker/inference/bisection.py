"""Finds the row that causes it: a request that is refused, or whose answers stay malformed, is bisected.

Runs on the event loop. What sends a part is handed in with each call: nothing here holds a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from labelmill.contracts.errors import LabelmillError, RequestRefused
from labelmill_worker.inference.admission import Admission, Flow
from labelmill_worker.inference.outcomes import Answer, Deferred, Outcome, RowFailed, Stop
from labelmill_worker.inference.planning import Request

_MAX_KNOWN = 1_000  #: Batches. What is forgotten is found out again.
#: Texts, asked alone and refused alike while none is answered, by which a batch counts as refused as a whole.
REFUSED_TEXTS = 20

Failed = Callable[[Request, LabelmillError], Outcome]


class SendPart(Protocol):
    """Sends a part of a request, under the slot that the whole holds."""

    def __call__(self, request: Request, *, in_parts: bool) -> Awaitable[list[Outcome]]: ...


@dataclass
class BatchVerdict:
    """What this process knows of a batch as a whole: until something of it was answered, one request at a time is
    bisected, because a batch whose first refused request is refused row by row alike is refused as a whole. Where
    requests hold one text each, so is one of whose texts the first ones are refused alike."""

    answered: bool = False
    refused_texts: int = 0  #: Asked alone and refused in the words of `last_refusal`, one after the other.
    last_refusal: str = ""
    answered_at: float = 0.0  #: When a reply was last usable, and …
    malformed: int = 0  #: … how many were not, so far.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note_refused_text(self, error: RequestRefused) -> bool:
        """Whether the refusal of one more text that was asked alone tells that the batch is refused as a whole."""
        words = str(error)
        self.refused_texts = self.refused_texts + 1 if words == self.last_refusal else 1
        self.last_refusal = words
        return self.refused_texts >= REFUSED_TEXTS


class BatchVerdicts:
    """Those of all batches. Belongs to the event loop."""

    def __init__(self) -> None:
        self._known: dict[str, BatchVerdict] = {}

    def of(self, batch_id: str) -> BatchVerdict:
        """What is known of a batch."""
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        return self._known.setdefault(batch_id, BatchVerdict())

    def note_answered(self, batch_id: str) -> None:
        """Something of the batch was answered, here or elsewhere."""
        self.of(batch_id).answered = True


async def bisect(
    request: Request, error: LabelmillError, send: SendPart, admission: Admission, fail_row: Failed
) -> list[Outcome]:
    """Send both halves; a single row's outcome is what `fail_row` makes of the error."""
    if len(request) == 1:
        return [fail_row(request, error)]
    return await send_halves(request, send, admission)


async def send_halves(request: Request, send: SendPart, admission: Admission) -> list[Outcome]:
    """Send both halves: at once where another slot is free."""
    # within a request that is bisected, a refusal needs no verdict: the lock is held already
    left, right = request.halves()
    if not admission.try_acquire_slot():
        return [*await send(left, in_parts=True), *await send(right, in_parts=True)]
    try:
        outcomes_of_halves = await asyncio.gather(send(left, in_parts=True), send(right, in_parts=True))
    finally:
        admission.release()
    return [outcome for outcomes in outcomes_of_halves for outcome in outcomes]


async def bisect_refused(
    request: Request,
    error: RequestRefused,
    send: SendPart,
    admission: Admission,
    fail_row: Failed,
    *,
    flow: Flow,
    verdict: BatchVerdict,
    is_late: Callable[[], bool],
) -> list[Outcome]:
    """Find the rows that are refused; `Stop` where the batch is refused as a whole."""
    if verdict.answered:
        return await bisect(request, error, send, admission, fail_row)
    if len(request) == 1:
        return [Stop(error)] if verdict.note_refused_text(error) else [fail_row(request, error)]
    # a request that waits for the verdict lends its slot to the one that is bisected
    is_lent = True
    admission.release()
    try:
        async with verdict.lock:
            await admission.acquire_slot(flow)
            is_lent = False
            if is_late():
                return [Deferred(None, 0.0)]
            outcomes = await bisect(request, error, send, admission, fail_row)
            return [Stop(error)] if _is_refused_as_a_whole(request, outcomes, verdict) else outcomes
    finally:
        if is_lent:
            await admission.acquire_slot(flow)


def _is_refused_as_a_whole(request: Request, outcomes: list[Outcome], verdict: BatchVerdict) -> bool:
    failures = [outcome.error for outcome in outcomes if isinstance(outcome, RowFailed)]
    alike = len(failures) == len(request) and len({str(failure) for failure in failures}) == 1
    if alike and not verdict.answered:
        return True
    verdict.answered = verdict.answered or any(isinstance(outcome, Answer) for outcome in outcomes)
    return False
