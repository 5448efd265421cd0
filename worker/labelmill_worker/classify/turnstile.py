"""Which request of a process starts next: one slot each, the fleet's limit, batches in turn.

Nothing that waits here holds anything. So a small batch's requests pass between those of a large one, and a chunk
whose time is up leaves without having reserved what others could use.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass

from labelmill_worker.mistral.limiter import FleetLimiter

MAX_LIMIT_WAIT_S = 5.0  #: A chunk that the limit holds back longer than this ends its task and hands back the rest.


@dataclass(frozen=True, slots=True)
class Lane:
    """Whose requests wait: lanes of the same rank take turns, a lower rank goes first."""

    batch: Hashable
    rank: int = 0


@dataclass(eq=False, slots=True)
class _Waiter:
    done: asyncio.Future[None]
    tokens: int
    needs_slot: bool
    needs_turn: bool


class Turnstile:
    """Slots bound the requests of the process that are under way or not yet recorded. Belongs to one event loop."""

    def __init__(self, limiter: FleetLimiter, slots: int) -> None:
        self.limiter = limiter
        self.free = slots
        self._waiting: OrderedDict[Lane, deque[_Waiter]] = OrderedDict()
        self._slot_came_free = asyncio.Event()
        self._pump_task: asyncio.Task[None] | None = None

    async def enter(self, lane: Lane, tokens: int) -> None:
        """Take a slot and the right to start. Raises HeldBack, BrokerUnavailable; no slot is taken then."""
        if self.free > 0 and not self._waiting and self.limiter.is_open():
            self.free -= 1
            return
        await self._wait(lane, tokens, needs_slot=True)

    async def again(self, lane: Lane, tokens: int) -> None:
        """The right to start once more, for who holds a slot already. Raises HeldBack, BrokerUnavailable."""
        if not self._waiting and self.limiter.is_open():
            return
        await self._wait(lane, tokens, needs_slot=False)

    async def slot(self, lane: Lane) -> None:
        """Take a slot alone."""
        if self.free > 0:
            self.free -= 1
        else:
            await self._wait(lane, 0, needs_slot=True, needs_turn=False)

    def take_free_slot(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.free <= 0 or self._waiting:
            return False
        self.free -= 1
        return True

    def leave(self, slots: int = 1) -> None:
        """Give slots back."""
        self.free += slots
        self._slot_came_free.set()

    async def _wait(self, lane: Lane, tokens: int, *, needs_slot: bool, needs_turn: bool = True) -> None:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), tokens, needs_slot, needs_turn)
        self._waiting.setdefault(lane, deque()).append(waiter)
        if self._pump_task is None or self._pump_task.done():
            self._pump_task = asyncio.create_task(self._pump())
        try:
            await waiter.done
        except asyncio.CancelledError:
            if waiter.done.done() and not waiter.done.cancelled() and not waiter.done.exception() and needs_slot:
                self.leave()  # it was let in at the same moment
            raise

    async def _pump(self) -> None:
        """Let waiters in, one after the other, until none is left."""
        while self._waiting:
            waiter = self._next_waiter()
            if waiter is None:
                self._slot_came_free.clear()
                await self._slot_came_free.wait()
                continue
            try:
                if waiter.needs_turn:
                    await self.limiter.wait_turn(waiter.tokens, MAX_LIMIT_WAIT_S)
            except Exception as error:  # noqa: BLE001 - it is raised again where the request is sent
                if not waiter.done.done():
                    waiter.done.set_exception(error)
                continue
            if waiter.done.done():
                continue  # it left meanwhile; its turn is lost
            if waiter.needs_slot:
                self.free -= 1
            waiter.done.set_result(None)

    def _next_waiter(self) -> _Waiter | None:
        """Take the most deserving waiter out of its lane; None: all of them need a slot and none is free."""
        for lane in sorted(self._waiting, key=lambda one: one.rank):  # stable: lanes of a rank keep their order
            line = self._waiting[lane]
            while line and line[0].done.done():
                line.popleft()
            found = next((one for one in line if not one.needs_slot or self.free > 0), None)
            if found is not None:
                line.remove(found)
                self._waiting.move_to_end(lane)
            if not line:
                del self._waiting[lane]
            if found is not None:
                return found
        return None
