"""When a request and a claim are tried again, and when not."""

from __future__ import annotations

import random

from labelmill.contracts.errors import RateLimited
from labelmill_worker.inference import retry_policy as policy
from labelmill_worker.mistral.ratelimit.sizes import RefusalFacts


def test_delays_are_spread_over_a_span_that_doubles_up_to_a_cap() -> None:
    rng = random.Random(1)
    for tries, longest in ((0, 0.5), (1, 1.0), (4, 8.0), (12, 30.0)):
        delays = [policy.next_delay_s(tries, rng) for _ in range(300)]
        assert 0 <= min(delays) < longest * 0.1
        assert longest * 0.9 < max(delays) <= longest


def test_a_429_is_waited_for_as_long_as_it_asks_or_a_second() -> None:
    assert policy.pause_after_429_s(RateLimited("slow", 7.0)) == 7.0
    assert policy.pause_after_429_s(RateLimited("slow")) == policy.PAUSE_S


def test_a_claim_that_brought_nothing_is_tried_again_later_and_later_up_to_a_minute() -> None:
    pauses = [policy.claim_pause_s(0.0, claims, is_fruitless=True) for claims in (1, 2, 3, 6, 50)]
    assert pauses == [2.0, 4.0, 8.0, 60.0, 60.0]
    assert policy.claim_pause_s(5.0, 1, is_fruitless=True) == 5.0
    assert policy.claim_pause_s(0.0, 50, is_fruitless=False) == 0.0


def test_only_a_request_larger_than_what_is_answered_or_allowed_may_meet_429s_for_ever() -> None:
    assert policy.may_never_fit(RefusalFacts(tokens_per_minute=1_000), 1_001)
    assert not policy.may_never_fit(RefusalFacts(tokens_per_minute=1_000), 1_000)
    assert policy.may_never_fit(RefusalFacts(largest_answered=100), 151)
    assert not policy.may_never_fit(RefusalFacts(largest_answered=100), 150)
    assert not policy.may_never_fit(RefusalFacts(), 1_000_000), "nothing tells it from a limit that is used up"
    assert [policy.is_explained(RefusalFacts(quiet_s)) for quiet_s in (0.0, 59.0, 60.0)] == [True, True, False]
    assert [policy.defers_refused_alone(claims) for claims in (1, 8, 9)] == [True, True, False]


def test_rows_answered_badly_fail_after_some_claims_and_all_that_is_left_after_an_hour_of_them() -> None:
    assert [policy.defers_malformed(claims) for claims in (1, 4, 5)] == [True, True, False]
    assert [policy.defers_unusable(claims) for claims in (1, 2, 3)] == [True, True, False]
    assert [policy.is_given_up(claims) for claims in (59, 60)] == [False, True]
