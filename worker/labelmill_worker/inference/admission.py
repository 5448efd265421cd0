"""Which request of a process starts next: one slot each, the fleet's limit, batches in turn.

Nothing that waits here holds anything. So a small batch's requests pass between those of a large one, and a chunk
whose time is up leaves without having reserved what others could use.
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

MAX_LIMIT_WAIT_S = 5.0  #: A chunk that the limit holds back longer than this ends its task and hands back the rest.
_LONGEST_S = 3600.0  #: What the loop's clock is asked for at most.
_CREDIT = 20  #: So many requests a batch that has just come may be ahead of those that have been served for long.


@dataclass(frozen=True, slots=True)
class Lane:
    """Whose requests wait: batches of the same rank take turns, a lower rank goes first. Within a batch the first chunk
    that needs a request does: so its answers come together, and a transaction for one chunk costs half of one for four.
    """

    batch: Hashable
    rank: int = 0
    chunk: int = field(default=0, compare=False)


@dataclass(eq=False, slots=True)
class _Waiter:
    done: asyncio.Future[bool]
    lane: Lane
    tokens: int
    until: float  #: Of the monotonic clock; then it is let go without a turn.
    needs_slot: bool
    needs_turn: bool

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def order(self) -> tuple[bool, bool, int]:
        """Lowest first: who only wants to leave, who goes on with a request, the first chunk."""
        is_new = self.needs_slot and self.needs_turn
        return not (self.done.done() or self.is_late), is_new, self.lane.chunk


class Turnstile:
    """Slots bound the requests of the process that are under way or not yet recorded. Belongs to one event loop.

    What lets in says whether the request may start: False when its time was up first; no slot is taken then.
    """

    def __init__(self, limiter: FleetLimiter, slots: int) -> None:
        self.limiter = limiter
        self.breaker = CircuitBreaker()
        self.free = slots
        self._waiting: dict[Lane, deque[_Waiter]] = {}
        self._served: dict[Lane, int] = {}  # requests let in; a lane that comes late starts `_CREDIT` behind the others
        self._clock = 0  # what the lane that was served last has been served
        self._news = asyncio.Event()
        self._pump_task: asyncio.Task[None] | None = None

    async def enter(self, lane: Lane, tokens: int, until: float) -> bool:
        """Take a slot and the right to start. Raises HeldBack, BrokerUnavailable; no slot is taken then."""
        if self.free > 0 and self._waiting.keys() <= {lane} and self.limiter.is_open():
            self.free -= 1
            return True
        return await self._wait(lane, tokens, until, needs_slot=True)

    async def again(self, lane: Lane, tokens: int, until: float) -> bool:
        """The right to start once more, for who holds a slot already. Raises HeldBack, BrokerUnavailable."""
        if not self._waiting and self.limiter.is_open():
            return True
        return await self._wait(lane, tokens, until, needs_slot=False)

    async def slot(self, lane: Lane) -> None:
        """Take a slot alone, however long it takes."""
        if self.free > 0:
            self.free -= 1
        else:
            await self._wait(lane, 0, float("inf"), needs_slot=True, needs_turn=False)

    def take_free_slot(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.free <= 0 or self._waiting:
            return False
        self.free -= 1
        return True

    def leave(self, slots: int = 1) -> None:
        """Give slots back."""
        self.free += slots
        self._news.set()

    async def _wait(self, lane: Lane, tokens: int, until: float, *, needs_slot: bool, needs_turn: bool = True) -> bool:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), lane, tokens, until, needs_slot, needs_turn)
        self._waiting.setdefault(lane, deque()).append(waiter)
        self._news.set()  # the pump may be waiting for a slot that this one does not need
        self._served[lane] = max(self._served.get(lane, 0), self._clock - _CREDIT)
        if self._pump_task is None or self._pump_task.done():
            self._pump_task = asyncio.create_task(self._pump())
        try:
            return await waiter.done
        except asyncio.CancelledError:
            if waiter.done.done() and not waiter.done.cancelled() and not waiter.done.exception():
                self.leave(int(needs_slot and waiter.done.result()))  # it was let in at the same moment
            raise

    async def _pump(self) -> None:
        """Let waiters in, one after the other, until none is left."""
        has_turn = False
        while self._waiting:
            waiter = self._next_waiter()
            if waiter is None:
                await self._wait_for_news()
                continue
            try:
                if waiter.needs_turn and not has_turn and not waiter.is_late:
                    has_turn = await self.limiter.wait_turn(waiter.tokens, MAX_LIMIT_WAIT_S, waiter.lane.rank)
                    if not has_turn:
                        self._put_back(waiter)
                        continue
            except Exception as error:  # noqa: BLE001 - it is raised again where the request is sent
                if not waiter.done.done():
                    waiter.done.set_exception(error)
                continue
            if waiter.done.done():
                continue  # cancelled meanwhile: the next one gets its turn
            if waiter.is_late:
                waiter.done.set_result(False)
                continue
            if waiter.needs_slot:
                self.free -= 1
            has_turn = has_turn and not waiter.needs_turn
            waiter.done.set_result(True)
            await asyncio.sleep(0)  # it takes what else is free by itself, unless another batch waits

    async def _wait_for_news(self) -> None:
        """Until a slot is free, somebody comes, or a waiter's time is up."""
        self._news.clear()
        until = min(waiter.until for line in self._waiting.values() for waiter in line)
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(min(until - time.monotonic(), _LONGEST_S), self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()

    def _next_waiter(self) -> _Waiter | None:
        """Take the most deserving waiter out of its lane; None: all of them need a slot and none is free."""
        for lane in sorted(self._waiting, key=lambda one: (one.rank, self._served[one])):
            line = self._waiting[lane]
            ready = [one for one in line if one.done.done() or one.is_late or not one.needs_slot or self.free > 0]
            if not ready:
                continue
            found = min(ready, key=attrgetter("order"))
            line.remove(found)
            if not line:
                del self._waiting[lane]
            self._clock = self._served[lane]
            self._served[lane] += 1
            self._forget_idle_lanes()
            return found
        return None

    def _put_back(self, waiter: _Waiter) -> None:
        """As if it had not been taken: whoever has come meanwhile may deserve a turn more."""
        self._waiting.setdefault(waiter.lane, deque()).appendleft(waiter)
        self._served[waiter.lane] -= 1

    def _forget_idle_lanes(self) -> None:
        if len(self._served) > 1000:
            floor = self._clock - _CREDIT
            kept = {lane: count for lane, count in self._served.items() if count > floor or lane in self._waiting}
            self._served = kept
