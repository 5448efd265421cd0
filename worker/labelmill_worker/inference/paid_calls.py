"""Sending a call once, what may be spent for it, and what it cost or may have cost."""

from __future__ import annotations

import time
from dataclasses import replace

from labelmill.contracts.errors import LabelmillError, MalformedAnswer, RateLimited, Unanswered
from labelmill.contracts.usage import Usage
from labelmill_worker.inference.after_429 import after_429
from labelmill_worker.inference.allowance import Allowance
from labelmill_worker.inference.counted_usage import counted_usage
from labelmill_worker.inference.planning import Request
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.ports.inference import Call, Inference, Reply
from labelmill_worker.process.delays import SubjectDelays


class PaidCalls:
    """Of one order. Belongs to the event loop."""

    def __init__(
        self, inference: Inference, limiter: FleetLimiter, delays: SubjectDelays, allowance: Allowance | None
    ) -> None:
        self._inference = inference
        self._limiter = limiter
        self._delays = delays
        self._allowance = allowance
        self._requests = 0
        self._usages: list[Usage] = []
        self.tokens = 0  #: That were reported, but by no answer.

    def take_costs(self) -> tuple[int, int, list[Usage]]:
        """How many requests were sent since the last time, the tokens that no answer tells of, and what is to be paid
        for."""
        costs = self._requests, self.tokens, self._usages
        self._requests = self.tokens = 0
        self._usages = []
        return costs

    async def send(self, call: Call, request: Request, *, ahead: int = 0) -> Reply:
        """Send a call for a request. `ahead`: what was taken for it already. Raises as `Inference.send`, CapReached,
        DatabaseUnavailable, LeaseLost."""
        allowance = self._allowance
        if allowance is None:
            return await self._send(call, request, 0)
        try:
            held = await allowance.take(call, ahead=ahead)
        except BaseException:
            self._limiter.of(call.model).note_no_answer(request.tokens)  # it was not sent
            raise
        try:
            return await self._send(call, request, held)
        except (Unanswered, MalformedAnswer):
            raise
        except LabelmillError:
            allowance.give_back(held)  # a refusal costs nothing
            raise

    async def _send(self, call: Call, request: Request, held: int) -> Reply:
        self._requests += 1
        limiter = self._limiter.of(call.model)
        began = time.monotonic()
        try:
            reply = await self._inference.send(call)
        except RateLimited as error:
            await after_429(limiter, self._delays, call.model, request, error, time.monotonic() - began)
            raise
        except BaseException as error:
            limiter.note_no_answer(request.tokens)
            if isinstance(error, Unanswered | MalformedAnswer):
                self._usages.append(counted_usage(call, request, held=held))
            raise
        limiter.note_answer(reply.limits, reply.tokens, request.tokens, time.monotonic() - began)
        usage = reply.usage(call.model) or counted_usage(call, request)
        self._usages.append(replace(usage, held=held) if held else usage)
        return reply
