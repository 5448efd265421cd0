"""What a claim may spend under its caps: reserved in SQL some requests ahead, before each of them is sent.

Belongs to one event loop. A claim without a cap has no allowance, and costs no statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from labelmill.contracts.errors import Permanent
from labelmill.core.money.costs import priced_model
from labelmill.core.money.nanos import nanos_at_least
from labelmill.core.money.prices import PriceList
from labelmill_worker.ports.inference import Call
from labelmill_worker.store.budgets import Cap

_MAX_AHEAD = 16  #: Requests for which is reserved at once. What a killed worker had reserved counts as spent.
_TEMPLATE_TOKENS = 5  #: What a server may add to a call or to each of its texts: marks of their beginning and end.

Reserve = Callable[[int], Cap | None]
"""Reserves an amount in SQL; returns the cap that has less left. Raises LeaseLost, DatabaseUnavailable."""


def upper_bound(call: Call, prices: PriceList, mode: str = "realtime", size_bytes: int | None = None) -> int:
    """What a call can cost at most, in billionths: no tokenizer makes more than one token of a byte, and a chat model
    writes no more than `max_tokens`. `size_bytes`: of a call of which a part is not known yet. Raises Permanent where
    no price is known."""
    price = prices.price_of(priced_model(call.model, prices))
    if price is None:
        raise Permanent(
            f"the price of {call.model} is not known, so its cost cannot be limited: set LABELMILL_PRICES",
            code="price_unknown",
        )
    parts = call.body.get("input") or call.body.get("messages") or ()
    size_bytes = len(orjson.dumps(call.body)) if size_bytes is None else size_bytes
    asked = size_bytes + _TEMPLATE_TOKENS * (2 if isinstance(parts, str) else 1 + len(parts))
    return nanos_at_least(price.amount(asked, int(call.body.get("max_tokens") or 0), mode=mode))


class Allowance:
    """What is reserved for a claim and not yet taken by a request."""

    def __init__(self, reserve: Reserve, prices: PriceList) -> None:
        self._reserve = reserve
        self._prices = prices
        self._left = 0
        self._ahead = 1
        self._reserving = asyncio.Lock()
        self.refused: tuple[Cap, int] | None = None  #: The cap that had too little left, and for how much.

    async def take_for_answer(self, call: Call, size_bytes: int) -> int:
        """Take what a request's own call may cost, before the vector that it needs is paid for. `call`: without what
        the vector chooses; `size_bytes`: about its size with that. Returns it. Raises as `take`."""
        amount = upper_bound(call, self._prices, size_bytes=size_bytes)
        await self._take(amount, amount)
        return amount

    async def take(self, call: Call, *, ahead: int = 0) -> int:
        """Take what a call can cost at most. Returns it. `ahead`: what `take_for_answer` took for it, which is used up
        in any case. Raises CapReached, LeaseLost, DatabaseUnavailable, and Permanent where no price is known."""
        try:
            amount = upper_bound(call, self._prices)
            if amount > ahead:
                await self._take(amount - ahead, amount)
        except BaseException:
            self._left += ahead
            raise
        self._left += max(0, ahead - amount)
        return amount

    async def _take(self, amount: int, of_call: int) -> None:
        async with self._reserving:
            if self._left < amount and (cap := await self._more(amount)) is not None:
                self.refused = (cap, of_call)
                raise cap.reached()
            self._left -= amount

    def give_back(self, amount: int) -> None:
        """Nothing was paid for the call after all."""
        self._left += amount

    async def _more(self, amount: int) -> Cap | None:
        if self._ahead > 1 and await asyncio.to_thread(self._reserve, amount * self._ahead) is None:
            self._left += amount * self._ahead
            self._ahead = min(_MAX_AHEAD, 2 * self._ahead)
            return None
        missing = amount - self._left
        cap = await asyncio.to_thread(self._reserve, missing)
        if cap is None:
            self._left += missing
            # near the cap one at a time, so that nothing is held that others could use
            self._ahead = 2 if self._ahead == 1 else 1
        return cap
