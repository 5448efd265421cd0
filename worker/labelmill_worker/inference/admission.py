"""Which request of a process starts next: one slot each, a permit of its model's limit, fair queueing between batches.

A request that waits here holds neither slot nor permit. So a small batch's requests pass between those of a large one,
and a chunk whose time is up leaves without having reserved what others could use.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import attrgetter

from labelmill_worker.mistral.breaker import CircuitBreaker
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.model_limiter import LATE_S

MAX_LIMIT_WAIT_S = 5.0  #: A chunk that the limit delays longer than this ends its task and releases the rest.
_MAX_TIMER_S = 3600.0  #: The longest timer that is set on the loop.
_CREDIT = 20  #: By so many requests a new batch may be ahead of those that have been served for long.


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow of fair queueing: the requests of one batch for one model. Flows of the same rank are served round robin,
    a lower rank first. Within a batch the first chunk goes first: so its answers come together, and a transaction for
    one chunk costs half of one for four."""

    batch: Hashable
    rank: int = 0
    chunk: int = field(default=0, compare=False)
    model: str = field(default="", compare=False)  #: Whose limit its requests need a permit of.


@dataclass(eq=False, slots=True)
class _Waiter:
    done: asyncio.Future[bool]
    flow: Flow
    tokens: int
    until: float  #: Of the monotonic clock; then it leaves without a permit.
    needs_slot: bool
    needs_permit: bool

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def order(self) -> tuple[bool, bool, int]:
        """Lowest first: waiters that leave, requests that are tried again, the first chunk."""
        is_new = self.needs_slot and self.needs_permit
        return not (self.done.done() or self.is_late), is_new, self.flow.chunk


class Admission:
    """Slots bound the requests of the process that are under way or not yet recorded; permits, of each model's limit,
    space their starts. Belongs to one event loop.

    What acquires says whether the request may start: False when its time was up first; no slot is taken then.
    """

    def __init__(self, limiter: FleetLimiter, slots: int) -> None:
        self.limiter = limiter
        self.breaker = CircuitBreaker()
        self.free = slots
        self._waiting: dict[Flow, deque[_Waiter]] = {}
        self._served: dict[Flow, int] = {}  # admitted requests; a new flow starts `_CREDIT` behind the others
        self._clock = 0  # the count of the flow that was served last
        self._changed = asyncio.Event()
        self._pump_task: asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}  # for a permit, by model: one that must wait holds up no other
        self._permits: dict[
            str, tuple[float, int]
        ] = {}  # not yet taken: since when, by the loop's clock, and its tokens

    async def acquire(self, flow: Flow, tokens: int, until: float) -> bool:
        """Take a slot and a permit to start. Raises NoPermitInTime, BrokerUnavailable; no slot is taken then."""
        if self.free > 0 and self._waiting.keys() <= {flow} and self.limiter.of(flow.model).is_open(tokens):
            self.free -= 1
            return True
        return await self._wait(flow, tokens, until, needs_slot=True)

    async def reacquire(self, flow: Flow, tokens: int, until: float) -> bool:
        """A permit to start once more, for a request that holds a slot already. Raises NoPermitInTime,
        BrokerUnavailable."""
        if not self._waiting and self.limiter.of(flow.model).is_open(tokens):
            return True
        return await self._wait(flow, tokens, until, needs_slot=False)

    async def acquire_slot(self, flow: Flow) -> None:
        """Take a slot alone, however long it takes."""
        if self.free > 0:
            self.free -= 1
        else:
            await self._wait(flow, 0, float("inf"), needs_slot=True, needs_permit=False)

    def try_acquire_slot(self) -> bool:
        """Take a slot if one is free and no request waits for it."""
        if self.free <= 0 or self._waiting:
            return False
        self.free -= 1
        return True

    def release(self, slots: int = 1) -> None:
        """Give slots back."""
        self.free += slots
        if (waiter := self._next_waiter()) is not None:
            self._serve(waiter)  # at once, not when the pump has its turn: a busy loop has replies to read before that
        self._changed.set()

    async def _wait(
        self, flow: Flow, tokens: int, until: float, *, needs_slot: bool, needs_permit: bool = True
    ) -> bool:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), flow, tokens, until, needs_slot, needs_permit)
        self._waiting.setdefault(flow, deque()).append(waiter)
        self._changed.set()  # the pump may be waiting for a slot that this one does not need
        self._served[flow] = max(self._served.get(flow, 0), self._clock - _CREDIT)
        if self._pump_task is None or self._pump_task.done():
            self._pump_task = asyncio.create_task(self._pump())
        try:
            return await waiter.done
        except asyncio.CancelledError:
            if waiter.done.done() and not waiter.done.cancelled() and not waiter.done.exception():
                self.release(int(needs_slot and waiter.done.result()))  # it was admitted at the same time
                if needs_permit and waiter.done.result():
                    self.limiter.of(flow.model).note_no_answer(tokens)
            raise

    async def _pump(self) -> None:
        """Admit waiters, one after the other, until none is left."""
        while self._waiting or self._asking:
            waiter = self._next_waiter()
            if waiter is None:
                await self._wait_for_change()
            elif self._serve(waiter):
                await asyncio.sleep(0)  # it takes what else is free by itself, unless another batch waits

    def _serve(self, waiter: _Waiter) -> bool:
        """Admit a waiter, or ask for a permit for it. Returns whether it was admitted."""
        if waiter.done.done():
            return False  # cancelled meanwhile
        if waiter.is_late:
            waiter.done.set_result(False)
            return False
        model = waiter.flow.model
        if waiter.needs_permit and not (self._take_permit(waiter) or self.limiter.of(model).is_open(waiter.tokens)):
            self._asking[model] = asyncio.create_task(self._ask_for_permit(waiter))
            return False
        if waiter.needs_slot:
            self.free -= 1
        waiter.done.set_result(True)
        return True

    async def _ask_for_permit(self, waiter: _Waiter) -> None:
        """Get a permit for the waiter's model. The waiter is queued again: a request that came meanwhile may be
        entitled to the permit first."""
        model = waiter.flow.model
        # no longer than the waiter stays: a permit for later would be lost, and with a slow limit it is one of a few
        max_wait_s = min(MAX_LIMIT_WAIT_S, max(0.0, waiter.until - time.monotonic()))
        try:
            if await self.limiter.of(model).wait_for_permit(waiter.tokens, max_wait_s, waiter.flow.rank):
                self._permits[model] = asyncio.get_running_loop().time(), waiter.tokens
            self._requeue(waiter)
        except Exception as error:  # noqa: BLE001 - it is raised again where the request is sent
            if not waiter.done.done():
                waiter.done.set_exception(error)
        finally:
            del self._asking[model]
            self._changed.set()

    def _take_permit(self, waiter: _Waiter) -> bool:
        model = waiter.flow.model
        if model not in self._permits:
            return False
        got_at, tokens = self._permits.pop(model)
        if asyncio.get_running_loop().time() - got_at <= LATE_S:
            self.limiter.of(model).change_request(tokens, waiter.tokens)
            return True
        self.limiter.of(model).return_permit(tokens)  # no slot was free, or the request that asked for it is gone
        return False

    async def _wait_for_change(self) -> None:
        """Until a slot or a permit is free, a request arrives, or a waiter's time is up."""
        self._changed.clear()
        until = min((waiter.until for line in self._waiting.values() for waiter in line), default=float("inf"))
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(min(until - time.monotonic(), _MAX_TIMER_S), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            alarm.cancel()

    def _next_waiter(self) -> _Waiter | None:
        """Take the next waiter out of its flow; None: all of them need a slot and none is free, or a permit
        that is being asked for."""
        for flow in sorted(self._waiting, key=lambda waiting: (waiting.rank, self._served[waiting])):
            line = self._waiting[flow]
            ready = [waiter for waiter in line if self._is_ready(waiter)]
            if not ready:
                continue
            chosen = min(ready, key=attrgetter("order"))
            line.remove(chosen)
            if not line:
                del self._waiting[flow]
            self._clock = self._served[flow]
            self._served[flow] += 1
            self._forget_idle_flows()
            return chosen
        return None

    def _is_ready(self, waiter: _Waiter) -> bool:
        if waiter.done.done() or waiter.is_late:
            return True
        if waiter.needs_permit and waiter.flow.model in self._asking:
            return False
        return not waiter.needs_slot or self.free > 0

    def _requeue(self, waiter: _Waiter) -> None:
        """As if it had not been taken: a request that came meanwhile may be entitled to a permit first."""
        self._waiting.setdefault(waiter.flow, deque()).appendleft(waiter)
        self._served[waiter.flow] = self._served.get(waiter.flow, self._clock) - 1

    def _forget_idle_flows(self) -> None:
        if len(self._served) > 1000:
            floor = self._clock - _CREDIT
            kept = {flow: count for flow, count in self._served.items() if count > floor or flow in self._waiting}
            self._served = kept
