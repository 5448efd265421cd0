"""Sending the requests of one chunk: the shared limit, retries, bisection. Runs on the process's event loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from labelmill.contracts.errors import (
    BrokerUnavailable,
    LabelmillError,
    MalformedAnswer,
    RateLimited,
    RequestRefused,
    Retryable,
    UnusableContent,
)
from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.inference.admission import Lane, Turnstile
from labelmill_worker.inference.planning import Request
from labelmill_worker.mistral.ratelimit.limiter import HeldBack
from labelmill_worker.process.draining import is_draining

MALFORMED_TRIES = 3  #: Then a request is halved, to find the row that Mistral cannot answer well.
MALFORMED_BASE_S = 0.1  #: Short: halving comes with further tries, and all of them should fit a task.
PAUSE_S = 1.0  #: After a 429 that names no Retry-After; limits are by the second. One that proves too short grows.


@dataclass(slots=True)
class Spending:
    """What a claim's requests cost so far that no answer of a row tells of."""

    requests: int = 0  #: Beside the one that each call of `ask` counts as.
    tokens: int = 0  #: Reported by malformed answers, and by requests that only prepared others.

    def unless_believed(self, tokens: int) -> _CountUnlessBelieved:
        """A block that checks an answer of so many tokens."""
        return _CountUnlessBelieved(self, tokens)


@dataclass(frozen=True, slots=True)
class _CountUnlessBelieved:
    spending: Spending
    tokens: int

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.spending.tokens += self.tokens


class Strategy(Protocol):
    """How rows become a request and an answer becomes scores: all that differs between kinds of call."""

    spent: Spending

    @property
    def model(self) -> str:
        """The id of the model that answers, as Mistral knows it."""
        ...

    @property
    def first_model(self) -> str:
        """Which model the first call of `ask` is to: its permit is taken before `ask`, those of others within."""
        ...

    @property
    def schema(self) -> LabelSchema | None:
        """Targets and labels in the order of an answer's scores; known after the first answer at the latest."""
        ...

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterable[Request]:
        """Cut rows into requests that this kind of call takes."""
        ...

    async def ask(self, request: Request) -> Answer:
        """Send one request. Raises LabelmillError, HeldBack."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request: results as Mistral gave them, already checked into `scores`."""

    request: Request
    scores: object
    tokens: int
    is_cached: bool = False  #: An earlier batch's; nothing was sent.
    vectors: Sequence[tuple[bytes, bytes]] = ()  #: `(digest, data)` of texts that were embedded to be kept.


@dataclass(frozen=True, slots=True)
class RowFailed:
    """One row that Mistral refuses or cannot answer."""

    row: int
    error: LabelmillError


@dataclass(frozen=True, slots=True)
class Unforeseen:
    """A fault of ours in one request. Its rows are left for a later claim; the other requests go on."""

    fault: Exception


@dataclass(frozen=True, slots=True)
class Stop:
    """The whole batch must stop: a fault that will not pass."""

    error: LabelmillError


@dataclass(frozen=True, slots=True)
class PutOff:
    """Rows left for a later task: the time was up, the limit held back, or Mistral is out of order."""

    error: LabelmillError | None
    wait_s: float

    def or_worse(self, other: PutOff | None) -> PutOff:
        """Both in one: a fault is not forgotten for a request that merely came too late."""
        return self if other is None else PutOff(self.error or other.error, max(self.wait_s, other.wait_s))


Outcome = Answer | RowFailed | Unforeseen | Stop | PutOff


@dataclass
class BatchVerdict:
    """What this process knows of a batch as a whole: until something of it was answered, one request at a time is
    taken apart, because a batch whose first refused request is refused row by row alike is refused as a whole."""

    answered: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ChunkSender:
    """Sends requests and reports the outcomes of each to `emit` (called on the loop).

    With every call `emit` takes over one slot of the turnstile's, and whoever records the outcomes gives it back. So a
    kill costs no more than the slots.
    """

    def __init__(
        self,
        strategy: Strategy,
        turnstile: Turnstile,
        lane: Lane,
        verdict: BatchVerdict,
        emit: Callable[[list[Outcome], int], None],
        rng: random.Random | None = None,
    ) -> None:
        self._strategy = strategy
        self._turnstile = turnstile
        self._lane = lane
        self._verdict = verdict
        self._emit = emit
        self._rng = rng or random.Random()
        self._stopped = False
        self.slice_until = 0.0  #: No request starts after this moment, nor after the next (of the monotonic clock).
        self.lease_until = 0.0
        self._sent = 0
        self.believes_in_better_answers = False  #: A row that Mistral cannot answer well is put off instead of failed.
        self.on_fault: Callable[[Exception], None] = _ignore  #: Told of faults that will pass …
        self.on_answer: Callable[[], None] = _ignore_answer  #: … and of every good answer.
        self.bisects_faults = False  #: A request that meets a fault of ours is halved, to find the row that causes it.

    @property
    def requests(self) -> int:
        """Sent so far."""
        return self._sent + self._strategy.spent.requests

    @property
    def further_tokens(self) -> int:
        """Reported so far, but by no answer."""
        return self._strategy.spent.tokens

    def stop(self) -> None:
        """Start nothing more; what is under way is awaited."""
        self._stopped = True

    def detach(self) -> None:
        """Report to nobody any more. Who sends and who records refer to each other: a chunk's texts would stay in
        memory until the garbage collector came by."""
        self._emit = _drop

    async def send_all(self, requests: Iterable[Request]) -> None:
        """Send everything; returns when every request has its outcome."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            for request in requests:
                if self._late():
                    break  # whoever asked sees that rows are left
                try:
                    if not await self._turnstile.enter(self._lane, request.tokens, self._deadline):
                        break
                except (HeldBack, BrokerUnavailable) as error:
                    self._emit_unsent(error)
                    break
                task = asyncio.create_task(self._send_holding_slot(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            if tasks:  # whatever went wrong here: they are paid for
                await asyncio.gather(*tasks)

    def _emit_unsent(self, error: HeldBack | BrokerUnavailable) -> None:
        self.on_fault(error)
        self.stop()
        self._emit([_put_off(error)], 0)

    def _late(self) -> bool:
        return self._stopped or is_draining() or time.monotonic() >= self._deadline

    @property
    def _deadline(self) -> float:
        return min(self.slice_until, self.lease_until)

    async def _send_holding_slot(self, request: Request) -> None:
        try:
            outcomes = await self._send(request, may_start=True)
        except BaseException:
            self._turnstile.leave()
            raise
        if any(isinstance(outcome, Answer) for outcome in outcomes):
            self._verdict.answered = True
        self._emit(outcomes, 1)

    async def _send(self, request: Request, *, in_parts: bool = False, may_start: bool = False) -> list[Outcome]:
        try:
            return await self._send_until_settled(request, in_parts=in_parts, may_start=may_start)
        except Exception as fault:  # noqa: BLE001 - it is raised again where the chunk is worked on
            if self.bisects_faults and len(request) > 1:
                return await self._send_halves(request)
            return [Unforeseen(fault)]

    async def _send_until_settled(self, request: Request, *, in_parts: bool, may_start: bool) -> list[Outcome]:
        """Send until answered, refused or put off. `may_start`: the turnstile let it in just now."""
        tries = 0
        malformed: list[MalformedAnswer] = []
        began = time.monotonic()
        while True:
            try:
                if not (may_start or self._late()):
                    may_start = await self._turnstile.again(self._lane, request.tokens, self._deadline)
                if not may_start or self._late():
                    return [PutOff(None, 0.0)]
                may_start = False
                self._turnstile.breaker.check()
                self._sent += 1
                began = time.monotonic()
                return [await self._ask(request)]
            except (HeldBack, BrokerUnavailable) as error:
                self.on_fault(error)
                self.stop()
                return [_put_off(error)]
            except RequestRefused as error:
                return await (self._halve if in_parts else self._take_apart)(request, error)
            except MalformedAnswer as error:
                malformed.append(error)
                if len(malformed) >= MALFORMED_TRIES:
                    return await self._after_malformed(request, malformed)
                await asyncio.sleep(next_delay_s(len(malformed), self._rng, base_s=MALFORMED_BASE_S))
            except RateLimited as error:
                self.on_fault(error)
                try:
                    limiter = self._turnstile.limiter.of(error.model or self._lane.model)
                    await limiter.pause(error.retry_after_s or PAUSE_S, time.monotonic() - began)
                except BrokerUnavailable as gone:
                    self.stop()
                    return [_put_off(gone)]
            except Retryable as error:
                self.on_fault(error)
                delay_s = max(error.retry_after_s or 0.0, next_delay_s(tries, self._rng))
                if time.monotonic() + delay_s >= self._deadline:
                    self.stop()
                    return [PutOff(error, delay_s)]
                await asyncio.sleep(delay_s)
            except LabelmillError as error:
                self.stop()
                return [Stop(error)]
            tries += 1

    async def _ask(self, request: Request) -> Answer:
        breaker = self._turnstile.breaker
        try:
            answer = await self._strategy.ask(request)
        except LabelmillError as error:
            breaker.record(error)
            raise
        breaker.record(None)
        self.on_answer()
        limiter = self._turnstile.limiter.of(self._strategy.model)
        if limiter.counts_tokens and answer.tokens:  # 0: Mistral does not report them, and the estimate stands
            await limiter.settle(request.tokens, answer.tokens)
        return answer

    async def _after_malformed(self, request: Request, errors: Sequence[MalformedAnswer]) -> list[Outcome]:
        if len(request) == 1 and all(isinstance(error, UnusableContent) for error in errors):
            return [RowFailed(request.rows[0], errors[-1])]  # it is the text, whenever it is asked
        return await self._halve(request, errors[-1])

    async def _take_apart(self, request: Request, error: RequestRefused) -> list[Outcome]:
        if self._verdict.answered:
            return await self._halve(request, error)
        # who waits for the verdict lends its slot to the request that is taken apart
        lent = True
        self._turnstile.leave()
        try:
            async with self._verdict.lock:
                await self._turnstile.slot(self._lane)
                lent = False
                return await self._judge(request, error)
        finally:
            if lent:
                await self._turnstile.slot(self._lane)

    async def _judge(self, request: Request, error: RequestRefused) -> list[Outcome]:
        if self._late():
            return [PutOff(None, 0.0)]
        outcomes = await self._halve(request, error)
        failures = [outcome.error for outcome in outcomes if isinstance(outcome, RowFailed)]
        alike = len(failures) == len(request) > 1 and len({str(failure) for failure in failures}) == 1
        if alike and not self._verdict.answered:
            self.stop()
            return [Stop(error)]
        self._verdict.answered = self._verdict.answered or any(isinstance(one, Answer) for one in outcomes)
        return outcomes

    async def _halve(self, request: Request, error: LabelmillError) -> list[Outcome]:
        if len(request) == 1:
            if isinstance(error, MalformedAnswer) and self.believes_in_better_answers:
                return [PutOff(error, 0.0)]
            return [RowFailed(request.rows[0], error)]
        return await self._send_halves(request)

    async def _send_halves(self, request: Request) -> list[Outcome]:
        # within a request that is taken apart, a refusal needs no verdict: the lock is held already
        left, right = request.halves()
        if not self._turnstile.take_free_slot():
            return [*await self._send(left, in_parts=True), *await self._send(right, in_parts=True)]
        try:  # one was free: both halves at once
            both = await asyncio.gather(self._send(left, in_parts=True), self._send(right, in_parts=True))
        finally:
            self._turnstile.leave()
        return [outcome for outcomes in both for outcome in outcomes]


def _ignore(error: Exception) -> None:
    del error


def _ignore_answer() -> None:
    pass


def _drop(outcomes: list[Outcome], slots: int) -> None:  # noqa: ARG001 - as `emit`
    raise RuntimeError("an outcome came after its chunk had ended")


def _put_off(error: HeldBack | BrokerUnavailable) -> PutOff:
    return PutOff(None, error.wait_s) if isinstance(error, HeldBack) else PutOff(error, 5.0)


def next_delay_s(tries: int, rng: random.Random, *, base_s: float = 0.5, cap_s: float = 30.0) -> float:
    """Full jitter: a random moment within a span that doubles with every try."""
    return rng.uniform(0, min(cap_s, base_s * 2**tries))
