"""When what failed is tried again, and when it is given up: requests, and claims of a chunk. Pure.

What may be set: the pauses after a Mistral that cannot answer, how often a request is sent whose reply is malformed,
how its pauses grow, and how many claims without any progress a chunk gets. What a circuit breaker adds for a Mistral
that is out of order is in `mistral/breaker.py`.
"""

from __future__ import annotations

import random

from labelmill.contracts.errors import MalformedAnswer, RateLimited, UnusableContent
from labelmill.contracts.reported_limits import ReportedLimits
from labelmill_worker.mistral.ratelimit.sizes import RefusalFacts

UNAVAILABLE_BASE_S = 0.5  #: Before a request is sent again that met a 5xx, a time-out or a cut connection …
UNAVAILABLE_CAP_S = 30.0  #: … and at most, however often it did.
MALFORMED_TRIES = 3  #: Of a request; then it is bisected, to find the row that Mistral cannot answer well.
MALFORMED_BASE_S = 0.1  #: Short: bisection comes with further tries, and all of them should fit a task.
#: Before the last try of a text alone whose answers a chat model could not finish: where other texts are answered
#: meanwhile its row fails after it, and a Mistral that spoils some answers for a few seconds must not cost the row.
LAST_UNUSABLE_PAUSE_S = 4.0
PAUSE_S = 1.0  #: After a 429 that names no Retry-After; limits are by the second. One that proves too short grows.
BROKER_PAUSE_S = 5.0  #: Before a chunk is tried again that Redis kept from being sent.
#: Claims in a row that brought nothing but malformed answers to a row before the row gets its error: half a minute. A
#: Mistral whose answers are all malformed for some seconds must not cost rows that it can answer.
MALFORMED_CLAIMS = 5
#: The same for what a chat model itself said, while no other text is answered either: each of these requests is paid.
UNUSABLE_CLAIMS = 3
#: Claims without any progress; then the rows left get the last error. About an hour of faults.
MAX_FRUITLESS_CLAIMS = 60
MAX_CLAIM_PAUSE_S = 60.0  #: Between two claims of a chunk.
#: A request may be more than the model gets in a minute where it is so much larger than any that was answered.
LARGER_FACTOR = 1.5
QUIET_S = 60.0  #: After so long without an answer to this fleet, its own requests do not explain a 429.
#: Claims in a row that brought nothing but a 429 to such a text before its row fails, at one that came after that time:
#: four minutes, in which the last four are a minute apart. Where others are always answered: `MAX_FRUITLESS_CLAIMS`.
REFUSED_ALONE_CLAIMS = 9
_ALL_LEFT_SHARE = 0.95  #: Of the tokens of a minute: what was used besides does not explain a refusal.


def next_delay_s(
    tries: int, rng: random.Random, *, base_s: float = UNAVAILABLE_BASE_S, cap_s: float = UNAVAILABLE_CAP_S
) -> float:
    """Full jitter: a random delay within a range that doubles with every try."""
    return rng.uniform(0, min(cap_s, base_s * 2**tries))


def malformed_tries(error: MalformedAnswer, *, texts: int) -> int:
    """How often a request is sent that gets such a reply; then it is bisected. What a chat model itself said of several
    texts it would say again: only fewer texts make another answer."""
    return 1 if texts > 1 and isinstance(error, UnusableContent) else MALFORMED_TRIES


def malformed_delay_s(tries: int, rng: random.Random, *, is_unusable_text: bool = False) -> float:
    """Before a request is sent again that got so many malformed replies; `is_unusable_text`: it is one text, and all
    of them came from a chat model that said nothing usable."""
    if is_unusable_text and tries == MALFORMED_TRIES - 1:
        return rng.uniform(LAST_UNUSABLE_PAUSE_S / 2, LAST_UNUSABLE_PAUSE_S)
    return next_delay_s(tries, rng, base_s=MALFORMED_BASE_S)


def pause_after_429_s(error: RateLimited) -> float:
    """How long the fleet sends nothing after a 429."""
    return error.retry_after_s or PAUSE_S


def never_fits(limits: ReportedLimits | None, tokens: int, *, texts: int) -> bool:
    """Whether a request of about so many tokens that met a 429 would meet one for ever: it needs more than the tokens
    of a minute. Several texts are tried in parts; of one text it is believed once all of a minute was left."""
    if limits is None or limits.tokens_per_minute is None or tokens <= limits.tokens_per_minute:
        return False
    was_all_left = (limits.tokens_left or 0) >= _ALL_LEFT_SHARE * limits.tokens_per_minute
    return texts > 1 or (was_all_left and limits.requests_left != 0)


def may_never_fit(facts: RefusalFacts, tokens: int) -> bool:
    """Whether a request of about so many tokens may meet a 429 for ever, as far as its size tells. Where it is no
    larger than others, a limit is used up: that is waited for."""
    limit = facts.tokens_per_minute
    return (limit is not None and tokens > limit) or 0 < LARGER_FACTOR * facts.largest_answered < tokens


def is_explained(facts: RefusalFacts) -> bool:
    """Whether what this fleet was answered lately may be why a 429 came."""
    return facts.quiet_s < QUIET_S


def defers_refused_alone(claims: int) -> bool:
    """Whether a text that may never fit is left for a later claim, in a chunk that was claimed so often."""
    return claims < REFUSED_ALONE_CLAIMS


def defers_malformed(claims: int) -> bool:
    """Whether a row whose replies are malformed is left for a later claim, in a chunk that was claimed so often."""
    return claims < MALFORMED_CLAIMS


def defers_unusable(claims: int) -> bool:
    """Whether a text without a usable answer of a chat model is left for a later claim, while no text is answered."""
    return claims < UNUSABLE_CLAIMS


def is_given_up(fruitless_claims: int) -> bool:
    """Whether a chunk's rows fail that so many claims in a row brought nothing for."""
    return fruitless_claims >= MAX_FRUITLESS_CLAIMS


def claim_pause_s(asked_s: float, claims: int, *, is_fruitless: bool) -> float:
    """Before a chunk is claimed again: as long as was asked for, and longer with every claim that brought nothing."""
    return min(MAX_CLAIM_PAUSE_S, max(asked_s, 2.0 ** min(claims, 6) if is_fruitless else 0.0))
