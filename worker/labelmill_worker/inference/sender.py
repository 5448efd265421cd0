"""Sending the requests of one chunk: each is admitted, sent, tried again, and its outcome delivered. Runs on the event
loop. When a request is tried again is in `retry_policy.py`, how the row that is refused is found in `bisection.py`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from labelmill.contracts.errors import (
    BrokerUnavailable,
    CapReached,
    DatabaseUnavailable,
    LabelmillError,
    MalformedAnswer,
    RateLimited,
    RequestRefused,
    Retryable,
    UnusableContent,
)
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.token_counts import BYTES_PER_TOKEN
from labelmill_worker.inference import retry_policy
from labelmill_worker.inference.admission import Admission, Flow
from labelmill_worker.inference.after_429 import RefusedAlone
from labelmill_worker.inference.allowance import Allowance
from labelmill_worker.inference.bisection import BatchVerdict, bisect, bisect_refused, send_halves
from labelmill_worker.inference.learned_labels import LearnedLabels
from labelmill_worker.inference.outcomes import (
    Answer,
    Deferred,
    Delivery,
    Outcome,
    RowFailed,
    Stop,
    Unforeseen,
)
from labelmill_worker.inference.paid_calls import PaidCalls
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.sending_window import SendingWindow
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.inference.unused_vectors import UnusedVectors
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime
from labelmill_worker.ports.inference import Call, Inference
from labelmill_worker.process.delays import SubjectDelays
from labelmill_worker.process.draining import is_draining

_FIELDS_BYTES = 500  #: Of a chat's body: its fields beside the prompt.


@dataclass(frozen=True, slots=True)
class ChunkOrder:
    """What is to be sent for one claim, and where its outcomes go."""

    strategy: Strategy
    labels: LearnedLabels
    flow: Flow
    window: SendingWindow
    delays: SubjectDelays  #: Gets temporary faults and every good answer reported.
    deliver: Callable[[Delivery], None]  #: Takes over the slots of what it is given.
    defers_malformed: bool = False  #: A row that Mistral cannot answer well is left for later instead of failed.
    defers_unusable: bool = False  #: So is one whose chat model said nothing usable, while no other text is answered.
    defers_refused_alone: bool = True  #: So is a text alone that may never fit into what its model gets in a minute.
    allowance: Allowance | None = None  #: What may be spent; None: there is no cap.
    bisects_faults: bool = False  #: A request that meets a fault of ours is bisected, to find the row that causes it.


class ChunkSender:
    """Sends an order's requests. With every delivery a slot of the admission's is handed over, and the recorder
    releases it once the outcomes are committed: a kill costs no more than the slots."""

    def __init__(
        self,
        inference: Inference,
        admission: Admission,
        verdict: BatchVerdict,
        order: ChunkOrder,
        unused_vectors: UnusedVectors,
        rng: random.Random | None = None,
    ) -> None:
        self._unused_vectors = unused_vectors
        self._admission = admission
        self._verdict = verdict
        self._order = order
        self._strategy, self._window = order.strategy, order.window
        # permits are those of a call's model, and the first call of a request may be for a vector
        self._flow = replace(order.flow, model=self._strategy.model)
        self._first_flow = replace(order.flow, model=self._strategy.vector_model or self._strategy.model)
        self._rng = rng or random.Random()
        self._calls = PaidCalls(inference, admission.limiter, order.delays, order.allowance)
        self._answers_ahead: dict[int, int] = {}  #: Request, by its identity → what is taken for its answer already.

    async def send_all(self, requests: Iterable[Request]) -> None:
        """Send everything; returns when every request has its outcome, and the last delivery was made."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            for request in requests:
                if self._is_late():
                    break  # the result says that rows are left
                try:
                    if not await self._admission.acquire(self._first_flow, request.tokens, self._window.deadline):
                        break
                except (NoPermitInTime, BrokerUnavailable) as error:
                    self._deliver([self._delayed(error)], slots=0)
                    break
                except LabelmillError as error:  # a budget is reached
                    self._window.close()
                    self._deliver([Stop(error)], slots=0)
                    break
                task = asyncio.create_task(self._send_holding_slot(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            try:
                if tasks:  # whatever went wrong here: they are paid for
                    await asyncio.gather(*tasks)
            finally:
                self._deliver((), slots=0, is_last=True)

    def _is_late(self) -> bool:
        return self._window.is_over or is_draining()

    def _deliver(self, outcomes: Sequence[Outcome], *, slots: int, is_last: bool = False) -> None:
        self._order.deliver(Delivery(outcomes, slots, *self._calls.take_costs(), is_last))

    async def _send_holding_slot(self, request: Request) -> None:
        try:
            outcomes = await self._send(request, may_start=True)
        except BaseException:
            self._admission.release()
            raise
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self._verdict.answered = True
            elif isinstance(outcome, Stop):
                self._window.close()
        self._deliver(outcomes, slots=1)

    async def _send(self, request: Request, *, in_parts: bool = False, may_start: bool = False) -> list[Outcome]:
        try:
            return await self._send_until_settled(request, in_parts=in_parts, may_start=may_start)
        except Exception as fault:  # noqa: BLE001 - it is raised again where the chunk is worked on
            if self._order.bisects_faults and len(request) > 1:
                return await send_halves(request, self._send, self._admission)
            return [Unforeseen(fault)]
        finally:
            if (ahead := self._answers_ahead.pop(id(request), 0)) and self._order.allowance is not None:
                self._order.allowance.give_back(ahead)

    async def _send_until_settled(self, request: Request, *, in_parts: bool, may_start: bool) -> list[Outcome]:
        """Send until answered, refused or deferred. `may_start`: it was admitted just now."""
        tries = 0
        malformed: list[MalformedAnswer] = []
        first_malformed_at = sent_at = 0.0
        malformed_of_others = 0
        flow, vector_call = self._first_flow, self._strategy.vector_call(request)
        vectors: Vectors | None = None
        while True:
            try:
                if not await self._may_start(flow, request, is_admitted=may_start):
                    # each malformed reply was paid for, and a slow limit leaves no slice room for all tries: such
                    # claims are counted
                    return [Deferred(malformed[-1] if malformed else None, 0.0)]
                may_start = False
                self._check_breaker(flow, request)
                if vector_call is not None and vectors is None:  # a later try of the request pays for it no more
                    vectors = await self._vectors_for(request, vector_call)
                    flow = self._flow
                sent_at = time.monotonic()
                return [await self._ask(request, vectors)]
            except (NoPermitInTime, BrokerUnavailable) as error:
                delayed = self._delayed(error)
                return [Deferred(malformed[-1], delayed.wait_s) if malformed else delayed]
            except RequestRefused as error:
                return await self._after_refusal(request, error, in_parts=in_parts)
            except MalformedAnswer as error:
                if not malformed:
                    first_malformed_at, malformed_of_others = time.monotonic(), self._verdict.malformed
                malformed.append(error)
                self._verdict.malformed += 1
                if len(malformed) >= retry_policy.malformed_tries(error, texts=len(request)):
                    others_were_answered = first_malformed_at < self._verdict.answered_at < sent_at
                    others_were_not = self._verdict.malformed - malformed_of_others > len(malformed)
                    is_the_text = others_were_answered or not others_were_not
                    return await self._after_malformed(request, malformed, is_the_text=is_the_text)
                is_unusable_text = len(request) == 1 and _are_unusable(malformed)
                await asyncio.sleep(
                    retry_policy.malformed_delay_s(len(malformed), self._rng, is_unusable_text=is_unusable_text)
                )
            except Retryable as error:
                if (outcome := await self._wait_out(request, error, tries)) is not None:
                    return [outcome]
            except LabelmillError as error:
                self._window.close()
                return [Deferred(error, 0.0) if isinstance(error, CapReached) else Stop(error)]
            tries += 1

    async def _wait_out(self, request: Request, error: Retryable, tries: int) -> Outcome | None:
        """Sleep until a request may be sent again that met a fault which passes; what comes of it if it may not."""
        if isinstance(error, RefusedAlone):
            return self._after_refusal_alone(request, error)
        if isinstance(error, RateLimited):
            return None  # the fleet pauses: the next permit comes after it
        self._order.delays.blocked(error)
        delay_s = max(error.retry_after_s or 0.0, retry_policy.next_delay_s(tries, self._rng))
        if time.monotonic() + delay_s >= self._window.deadline:
            self._window.close()
            return Deferred(error, delay_s)
        await asyncio.sleep(delay_s)
        return None

    def _forgo_permit(self, flow: Flow, request: Request) -> None:
        """A request that was admitted is not sent: it tells nothing of its model's limits."""
        self._admission.limiter.of(flow.model).note_no_answer(request.tokens)

    def _check_breaker(self, flow: Flow, request: Request) -> None:
        try:
            self._admission.breaker.check()
        except LabelmillError:
            self._forgo_permit(flow, request)
            raise

    async def _may_start(self, flow: Flow, request: Request, *, is_admitted: bool) -> bool:
        """Whether it has a permit to start, if need be one to start once more. False: the time is up."""
        if not is_admitted:
            if self._is_late():
                return False
            is_admitted = await self._admission.reacquire(flow, request.tokens, self._window.deadline)
        if is_admitted and self._is_late():
            self._forgo_permit(flow, request)
            return False
        return is_admitted

    async def _ask(self, request: Request, vectors: Vectors | None) -> Answer:
        """Send a request once. Raises LabelmillError."""
        breaker, limiter = self._admission.breaker, self._admission.limiter.of(self._strategy.model)
        try:
            answer = await self._answer_to(request, self._call_of(request, vectors))
        except (CapReached, DatabaseUnavailable, LeaseLost):
            breaker.abandon()  # it was not sent
            raise
        except LabelmillError as error:
            breaker.record(error)
            raise
        except BaseException:
            breaker.abandon()
            raise
        breaker.record(None)
        self._verdict.answered_at = time.monotonic()
        if vectors is not None:
            self._unused_vectors.forget(self._strategy.vector_model or "", request.texts)
        self._order.delays.resumed()
        if limiter.counts_tokens and answer.tokens:  # 0: Mistral does not report them, and the estimate stands
            await limiter.settle(request.tokens, answer.tokens)
        return answer

    def _call_of(self, request: Request, vectors: Vectors | None) -> Call:
        try:
            return self._strategy.call(request, vectors)
        except BaseException:
            self._forgo_permit(self._flow, request)
            raise

    async def _answer_to(self, request: Request, call: Call) -> Answer:
        reply = await self._calls.send(call, request, ahead=self._answers_ahead.pop(id(request), 0))
        labels = self._order.labels
        try:
            schema = labels.schema
            if schema is None:
                schema = await labels.learn(partial(self._strategy.learn, request, reply))
            return self._strategy.read(request, reply, schema)
        except BaseException:
            self._calls.tokens += reply.tokens
            raise

    async def _vectors_for(self, request: Request, call: Call) -> Vectors:
        """The vectors that a request needs, and a permit for its own call: the one that it was admitted with was this
        call's. Raises LabelmillError, NoPermitInTime."""
        vectors = self._unused_vectors.of(call.model, request.texts)
        if vectors is None:
            await self._take_for_answer(request)
            vectors = await self._paid_vectors(request, call)
            self._unused_vectors.keep(call.model, request.texts, vectors)
        else:
            self._forgo_permit(self._first_flow, request)
        # they are paid for: the end of a slice does not waste them
        if not await self._admission.reacquire(self._flow, request.tokens, self._window.lease_until):
            raise NoPermitInTime(0.0)
        return vectors

    async def _take_for_answer(self, request: Request) -> None:
        """At a cap no vector is paid for whose text cannot be asked about then."""
        allowance = self._order.allowance
        if allowance is None or id(request) in self._answers_ahead:
            return
        try:
            call = self._strategy.call(request, None)
            size_bytes = request.tokens * BYTES_PER_TOKEN + sum(map(len, request.texts)) + _FIELDS_BYTES
            ahead = await allowance.take_for_answer(call, size_bytes)
        except BaseException:
            self._forgo_permit(self._first_flow, request)
            self._admission.breaker.abandon()
            raise
        self._answers_ahead[id(request)] = ahead

    async def _paid_vectors(self, request: Request, call: Call) -> Vectors:
        breaker = self._admission.breaker
        try:
            reply = await self._calls.send(call, request)
            self._calls.tokens += reply.tokens
            vectors = self._strategy.read_vectors(request, reply)
        except (CapReached, DatabaseUnavailable, LeaseLost):
            breaker.abandon()
            raise
        except LabelmillError as error:
            breaker.record(error)
            raise
        except BaseException:
            breaker.abandon()
            raise
        breaker.record(None)
        if reply.tokens:
            await self._admission.limiter.of(call.model).settle(request.tokens, reply.tokens)
        return vectors

    async def _after_refusal(self, request: Request, error: RequestRefused, *, in_parts: bool) -> list[Outcome]:
        if in_parts:
            return await bisect(request, error, self._send, self._admission, self._failed)
        return await bisect_refused(
            request,
            error,
            self._send,
            self._admission,
            self._failed,
            flow=self._flow,
            verdict=self._verdict,
            is_late=self._is_late,
        )

    async def _after_malformed(
        self, request: Request, errors: Sequence[MalformedAnswer], *, is_the_text: bool
    ) -> list[Outcome]:
        """`is_the_text`: other texts were answered meanwhile, or none was asked."""
        if len(request) == 1 and _are_unusable(errors):
            if is_the_text or not self._order.defers_unusable:
                return [RowFailed(request.rows[0], errors[-1])]
            return [Deferred(errors[-1], 0.0)]
        return await bisect(request, errors[-1], self._send, self._admission, self._failed)

    def _after_refusal_alone(self, request: Request, error: RefusedAlone) -> Outcome:
        if error.is_explained or self._order.defers_refused_alone:
            return Deferred(error, 0.0)
        self._admission.limiter.of(error.model).sizes.note_too_large(request.tokens)
        return RowFailed(request.rows[0], error.as_refusal())

    def _failed(self, request: Request, error: LabelmillError) -> Outcome:
        """What comes of a single row."""
        if isinstance(error, MalformedAnswer) and self._order.defers_malformed:
            return Deferred(error, 0.0)
        return RowFailed(request.rows[0], error)

    def _delayed(self, error: NoPermitInTime | BrokerUnavailable) -> Deferred:
        """The limit allows no start for long, or cannot be asked: nothing more of the chunk starts now."""
        self._order.delays.blocked(error)
        self._window.close()
        if isinstance(error, NoPermitInTime):
            return Deferred(None, error.wait_s)
        return Deferred(error, retry_policy.BROKER_PAUSE_S)


def _are_unusable(errors: Sequence[MalformedAnswer]) -> bool:
    """Whether all of them are what a chat model itself said."""
    return all(isinstance(error, UnusableContent) for error in errors)
