"""What a 429 means for the request that met it: it waits with the others, is sent in parts, or may never fit into what
its model gets in a minute. Runs on the event loop."""

from __future__ import annotations

import asyncio

from labelmill.contracts.errors import ModelUnavailable, RateLimited, RequestRefused
from labelmill_worker.inference import retry_policy
from labelmill_worker.inference.planning import Request
from labelmill_worker.mistral.ratelimit.model_limiter import ModelLimiter
from labelmill_worker.process.delays import SubjectDelays


class RefusedAlone(RateLimited):
    """A text that is asked alone met a 429 and may never fit. `is_explained`: what this fleet was answered in the
    minute before may be why."""

    def __init__(self, model: str, tokens: int, refusal: RateLimited, *, is_explained: bool) -> None:
        message = f"a text of about {tokens:,} tokens may be more than {model} may get in a minute: {refusal.message}"
        super().__init__(message, refusal.retry_after_s, refusal.limits)
        self.model, self.tokens, self.is_explained = model, tokens, is_explained

    def as_refusal(self) -> RequestRefused:
        """The error of its row, once it is given up."""
        return RequestRefused(
            f"a text of about {self.tokens:,} tokens met a 429 again and again while nothing else was sent to "
            f"{self.model}: it is more than the model may get in a minute",
            413,
        )


async def after_429(
    limiter: ModelLimiter,
    delays: SubjectDelays,
    model: str,
    request: Request,
    error: RateLimited,
    since_start_s: float,
) -> None:
    """Pause the fleet's requests to the model. Raises what tells that this does not help, or may not: ModelUnavailable,
    RequestRefused, RefusedAlone; and BrokerUnavailable."""
    is_alone, tokens = len(request) == 1, request.tokens
    if error.limits is not None and error.limits.forbids_all:
        limiter.note_no_answer(tokens)
        raise ModelUnavailable(
            f"the account's plan at Mistral allows no request to {model} (its limit is 0); "
            "choose another model, or have Mistral raise the limit"
        ) from error
    sizes = limiter.sizes
    known = sizes.facts(asyncio.get_running_loop().time() - since_start_s)
    never_fits = retry_policy.never_fits(sizes.with_known_limit(error.limits), tokens, texts=len(request))
    may_never_fit = retry_policy.may_never_fit(known, tokens)
    if never_fits or (is_alone and sizes.is_too_large(tokens)) or (not is_alone and may_never_fit):
        await limiter.note_never_fits(error.limits, tokens, since_start_s)
        refusal = f"a request of {tokens:,} tokens is more than {model} may get in a minute"
        raise RequestRefused(refusal, 413) from error
    said = f"{error.message} (it was asked for a request of about {tokens:,} tokens)"
    delays.blocked(RateLimited(said))
    if may_never_fit and error.retry_after_s is None and retry_policy.is_explained(known):
        await limiter.note_never_fits(error.limits, tokens, since_start_s)  # others need not wait for it
        raise RefusedAlone(model, tokens, error, is_explained=True) from error
    known = await limiter.pause(retry_policy.pause_after_429_s(error), since_start_s, error.limits, tokens)
    if is_alone and retry_policy.may_never_fit(known, tokens):
        await limiter.settle(tokens, 0)  # nor for what it had reserved
        raise RefusedAlone(model, tokens, error, is_explained=retry_policy.is_explained(known)) from error
