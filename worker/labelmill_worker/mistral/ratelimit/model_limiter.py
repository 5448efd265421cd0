"""The rate limit of one model, for one process of the fleet: what it asks Redis, and what it need not ask."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any

from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from labelmill.contracts.errors import BrokerUnavailable, MonthlyLimitReached
from labelmill.contracts.reported_limits import ReportedLimits
from labelmill_worker.mistral.ratelimit.law import LAW
from labelmill_worker.mistral.ratelimit.limits import Limit, RateLimits
from labelmill_worker.mistral.ratelimit.reports import Reports
from labelmill_worker.mistral.ratelimit.sizes import RefusalFacts, Sizes

LATE_S = 0.02  #: A permit that would be used later than this is returned: its request would start beside the next ones.
_BLOCK_S = 0.04  #: Permits are reserved for so long ahead, in one call, where they are close together.
_YIELD_S = 0.5  #: A process that yields to another rank asks again at least this often.
_CHECK_EVERY_S = 0.25  #: Without a limit, how often a process checks whether another one met a 429.
_GONE = "Redis, which holds the shared rate limit, cannot be reached"


class NoPermitInTime(Exception):
    """The limit allows no start within the longest wait; `wait_s` says when it would."""

    def __init__(self, wait_s: float, model: str | None = None) -> None:
        self.wait_s = wait_s
        self.message = f"requests to {model}" if model else ""
        super().__init__(f"held back for {wait_s:.1f} s")


class ModelLimiter:
    """Spaces the requests to one model of all processes that share a key.

    What binds them is what Mistral reports, and what is set, if that is lower. It adapts where neither tells: 429s slow
    the requests to this model down, and time without one lets them recover. Where there is no limit at all, the first
    429 makes one of what the fleet sent so far.
    """

    def __init__(
        self,
        scripts: dict[str, AsyncScript],
        prefix: str,
        limits: RateLimits,
        model: str | None,
        *,
        first_alone: bool = False,
    ) -> None:
        self._scripts, self._model = scripts, model
        self._limit, self._fleet = limits.of(model), limits.fleet
        # the fleet's keys are those of workers that knew no limits of models: both kinds share the fleet's limit
        own = f"{prefix}:control" if model is None else f"{prefix}:model:{model}"
        self._fleet_keys = [f"{prefix}:{name}" for name in ("next", "tokens", "ranks", "booked")]
        self._model_keys = [f"{own}:{name}" for name in ("next", "tokens", "ranks")]
        self._adaptive_keys = [f"{own}:{name}" for name in ("pause", "adaptation", "started")]
        self._reported_keys = [f"{own}:{name}" for name in ("reported", "first", "window")]
        self._reported_key, self._first_key, self._window_key = self._reported_keys
        self._models_key = f"{prefix}:models"
        self._used_key, self._under_way_key = f"{own}:used", f"{own}:under_way"
        self._answered_key = f"{own}:answered"
        self._process = secrets.token_hex(6)  # what Redis knows this process by
        self._under_way = 0  # tokens of permits and of requests that are neither given up nor reported as answered
        self._permits: deque[tuple[float, int]] = deque()  # reserved ahead: the loop's clock, tokens
        self._unused = 0  # of the reserved permits, since the last reservation
        self._paused_until = 0.0  # by the loop's clock; the model's pause as far as this process knows
        self._first_alone = first_alone
        self._knows_limits = not first_alone  # or knows that Mistral reports none
        self._has_limit = bool(self._limit)  # a set, reported or guessed one: each request needs a permit
        self._limits_tokens = self._limit.tokens_per_s > 0
        self._spacing_s = 1 / self._limit.requests_per_s if self._limit.requests_per_s else 0.0
        self._reports = Reports()
        self.sizes = Sizes()
        self._check_at = 0.0
        self._uncounted = 0  # requests started since the last check
        self._tasks: set[asyncio.Task[None]] = set()  # of short calls to Redis that nothing waits for

    @property
    def counts_tokens(self) -> bool:
        """Whether requests are limited by their tokens too."""
        return self._limits_tokens

    def bind(self, limit: Limit) -> None:
        """What is set for the model is `limit` from now on."""
        self._limit = limit
        self._has_limit = self._has_limit or bool(limit)  # the next reservation tells whether there still is one
        self._limits_tokens = self._limits_tokens or limit.tokens_per_s > 0

    def is_open(self, tokens: int) -> bool:
        """Whether a request of so many tokens may start without asking Redis; it is counted as started then."""
        if self._has_limit or not self._knows_limits:
            return False
        now = asyncio.get_running_loop().time()
        if now >= self._check_at or now < self._paused_until:
            return False
        self._uncounted += 1
        self._under_way += tokens
        return True

    async def wait_for_permit(self, tokens: int, max_wait_s: float, rank: int | None = None) -> bool:
        """Sleep until a request of `tokens` tokens may start. False: it may not yet, for somewhere in the fleet
        requests of a lower `rank` wait, which go first; ask again. Requests without a rank never yield.

        Raises NoPermitInTime when that is more than `max_wait_s` away, MonthlyLimitReached when the month's tokens do
        not suffice, BrokerUnavailable when Redis is gone: then no process knows what the others send, and nothing is
        sent.
        """
        if not self._has_limit and self._knows_limits:
            self._check_if_due()
            await self._wait_out_pause(max_wait_s)
            self._uncounted += 1
            self._under_way += tokens
            return True
        loop = asyncio.get_running_loop()
        was_late = False
        while True:
            await self._wait_out_pause(max_wait_s)
            known_pause = self._paused_until
            start = await self._next_permit(tokens, max_wait_s, rank)
            if start is None:
                return False
            if (wait_s := start - loop.time()) > 0:
                try:
                    await asyncio.sleep(wait_s)
                except asyncio.CancelledError:
                    self.return_permit(tokens)
                    raise
            if self._reports.is_first:
                return True  # no other request is under way that it could start beside
            if self._paused_until <= max(known_pause, start + LATE_S):
                if was_late or loop.time() - start <= LATE_S:
                    return True
                was_late = True
            # else another request was refused while this one slept: it waits as long as that one
            self._under_way -= tokens
            self._return_permits(1)
            await self.settle(tokens, 0)  # or the next permit would come after the tokens that this one reserved

    def change_request(self, asked: int, used: int) -> None:
        """A permit that was asked for a request of `asked` tokens is used for another one."""
        self._under_way += used - asked

    def return_permit(self, tokens: int) -> None:
        """A permit that `wait_for_permit` gave for so many tokens is not used."""
        self._under_way -= tokens
        if self._has_limit or not self._knows_limits:
            self._unused += 1
        else:
            self._uncounted -= 1
        if self.counts_tokens:
            self._keep_task(self.settle(tokens, 0))
        if self._reports.is_first:  # the next one goes alone
            self._reports.is_first = False
            self._keep_task(self._forget_first())

    async def _next_permit(self, tokens: int, max_wait_s: float, rank: int | None) -> float | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + max_wait_s
        while True:
            while self._permits:
                permit, reserved = self._permits.popleft()
                self._under_way -= reserved
                if loop.time() - permit <= LATE_S and permit >= self._paused_until:
                    self._under_way += tokens
                    return permit
                self._unused += 1
            count = 1
            if self._knows_limits and self._spacing_s and not self._limits_tokens:
                count = max(1, min(LAW.max_reserved_permits, int(_BLOCK_S / self._spacing_s)))
            what, wait_s = await self._reserve(tokens, max_wait_s, count, rank)
            if what == b"too far":
                raise NoPermitInTime(wait_s, self._model)
            if what == b"yield":
                await asyncio.sleep(min(wait_s, _YIELD_S))
                return None
            if what in (b"reserved", b"first"):
                return self._permits.popleft()[0]
            if what == b"month":
                raise MonthlyLimitReached.of(self._model)
            if what == b"unknown":
                if loop.time() + wait_s > until:
                    raise NoPermitInTime(_CHECK_EVERY_S, self._model)
                await asyncio.sleep(wait_s)
                continue
            self._paused_until = max(self._paused_until, loop.time() + wait_s)
            await self._wait_out_pause(max_wait_s)

    async def _reserve(self, tokens: int, max_wait_s: float, count: int, rank: int | None) -> tuple[bytes, float]:
        """Ask for `count` permits; what was reserved stands in `_permits`. Returns what happened, and the wait."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        unused, self._unused = self._unused, 0
        shared = (*self._fleet_keys, *self._model_keys)
        limits = (
            self._fleet.requests_per_s,
            self._fleet.tokens_per_s,
            self._limit.requests_per_s,
            self._limit.tokens_per_s,
        )
        try:
            what, wait_us, spacing_us, limits_tokens = await self._scripts["reserve"](
                keys=[*shared, *self._adaptive_keys, *self._reported_keys, self._under_way_key],
                args=[
                    *limits,
                    tokens,
                    max_wait_s,
                    count,
                    unused,
                    -1 if rank is None else rank,
                    int(self._first_alone),
                    self._process,
                    self._under_way,
                ],
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(_GONE) from error
        wait_s = wait_us / 1e6
        if what not in (b"reserved", b"first"):
            self._unused += unused
            return what, wait_s
        self._reports.is_first = what == b"first"
        self._knows_limits = what != b"first"
        self._spacing_s, self._limits_tokens = spacing_us / 1e6, bool(limits_tokens)
        self._has_limit = bool(self._limit or spacing_us or limits_tokens)  # or a guess was dropped: no 429 for long
        # Redis read its clock between asking and answering: taken as late as it can have been, no permit comes early
        first = (loop.time() if wait_us else asked_at) + wait_s
        self._permits.extend((first + index * spacing_us / 1e6, tokens) for index in range(count))
        self._under_way += tokens * count
        return what, wait_s

    def _return_permits(self, taken: int = 0) -> None:
        self._unused += taken + len(self._permits)
        self._under_way -= sum(tokens for _, tokens in self._permits)
        self._permits.clear()

    async def _wait_out_pause(self, max_wait_s: float) -> None:
        remaining_s = self._paused_until - asyncio.get_running_loop().time()
        if remaining_s > max_wait_s:
            raise NoPermitInTime(remaining_s, self._model)
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    def _check_if_due(self) -> None:
        """Without a limit there is nothing to reserve, and Redis is not asked for each request: only a pause counts."""
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            self._check_at = now + _CHECK_EVERY_S
            self._keep_task(self._check_pause())

    async def _check_pause(self) -> None:
        count, self._uncounted = self._uncounted, 0
        try:
            keys = [*self._adaptive_keys, self._reported_key]
            left_ms, has_limit = await self._scripts["check"](keys=keys, args=[count])
        except (RedisError, OSError):
            return  # no limit is known: without Redis nothing is forbidden
        self._has_limit = bool(has_limit or self._limit)
        if left_ms > 0:
            self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + left_ms / 1000)

    async def pause(
        self, seconds: float, since_start_s: float = 0.0, limits: ReportedLimits | None = None, tokens: int = 0
    ) -> RefusalFacts:
        """Hold the whole fleet's requests to this model back, as the 429 asks that a request of `tokens` met which
        started `since_start_s` ago. `limits`: what the 429 tells. Returns what the fleet knows of the model.

        Raises BrokerUnavailable.
        """
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        self._return_permits()
        self._under_way -= tokens
        count, self._uncounted = self._uncounted, 0
        limit, is_explained = self._limit, limits is not None and limits.explain_refusal(tokens)
        self._reports.note(limits, 0, 0, loop.time())  # Mistral does not count what it refuses
        try:
            if limits is not None or self._reports.is_first:
                await self._report(since_start_s)
            left_ms, quiet_ms, largest, told_tokens = await self._scripts["refuse"](
                keys=[*self._adaptive_keys, self._reported_key, self._window_key, self._answered_key],
                args=[
                    max(seconds, 0.001),
                    limit.requests_per_s,
                    limit.tokens_per_s,
                    count,
                    since_start_s,
                    int(is_explained),
                    *self.sizes.take(loop.time()),
                ],
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(_GONE) from error
        self._paused_until = max(self._paused_until, loop.time() + left_ms / 1000)
        self._has_limit = True
        quiet_s = quiet_ms / 1000 if quiet_ms >= 0 else math.inf
        facts = RefusalFacts(quiet_s, largest, told_tokens if told_tokens >= 0 else None)
        self.sizes.note_facts(facts)
        return facts

    def note_answer(self, limits: ReportedLimits | None, used: int, reserved: int, since_start_s: float) -> None:
        """Take note of an answer: what it tells of the limits, the tokens that it used (0: not told, and those that
        were reserved stand for them) and that were reserved for it. A few reports a second are enough for Redis."""
        reports, now = self._reports, asyncio.get_running_loop().time()
        self.sizes.note_answer(reserved, now)
        if limits is not None and limits.tokens_per_minute:
            self.sizes.tokens_per_minute = limits.tokens_per_minute
        if limits is None and not self._has_limit and not reports.is_first:
            self._under_way -= reserved
            return
        reports.note(limits, used or reserved, reserved, now)
        if reports.is_due(now, limits):
            self._keep_task(self._report_unless_gone(since_start_s))

    async def note_never_fits(self, limits: ReportedLimits | None, tokens: int, since_start_s: float) -> None:
        """A request of so many tokens met a 429 that no waiting helps: it is larger than a minute's tokens. Its parts
        wait for nothing that it had reserved."""
        self._under_way -= tokens
        self._reports.note(limits, 0, 0, asyncio.get_running_loop().time())  # Mistral does not count what it refuses
        await self._report_unless_gone(since_start_s)
        await self.settle(tokens, 0)

    def note_no_answer(self, tokens: int) -> None:
        """A request of so many tokens met a fault that tells nothing about limits, or was not sent: where it went
        alone, the next one does."""
        self._under_way -= tokens
        if self._reports.is_first:
            self._reports.is_first = False
            self._keep_task(self._forget_first())

    async def _report_unless_gone(self, since_start_s: float) -> None:
        with contextlib.suppress(RedisError, OSError):  # the next report is as good
            await self._report(since_start_s)

    async def _report(self, since_start_s: float) -> None:
        was_first, now = self._reports.is_first, asyncio.get_running_loop().time()
        arguments, reserved = self._reports.take(now)
        self._under_way -= reserved
        keys = [*self._reported_keys, self._used_key, self._model_keys[1], self._under_way_key, self._models_key]
        keys.append(self._answered_key)
        told: list[str | float] = [*arguments[:5], since_start_s, *arguments[5:]]
        args = [*told, self._process, self._under_way, self._model or "", *self.sizes.take(now)]
        await self._scripts["report"](keys=keys, args=args)
        if was_first:
            self._knows_limits = True
        self._has_limit = self._has_limit or any(argument >= 0 for argument in arguments[:5])

    async def _forget_first(self) -> None:
        with contextlib.suppress(RedisError, OSError):  # it is forgotten by itself, later
            await self._scripts["forget"](keys=[self._first_key])

    def _keep_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, reserved: int, used: int) -> None:
        """Give back tokens that were not used, or take what was used beyond the reservation."""
        if not self.counts_tokens or used == reserved:
            return
        try:
            await self._scripts["settle"](
                keys=[self._fleet_keys[1], self._model_keys[1], self._reported_key, self._adaptive_keys[1]],
                args=[self._fleet.tokens_per_s, self._limit.tokens_per_s, used - reserved],
            )
        except (RedisError, OSError):
            pass  # the reservation stands, which is the careful side
