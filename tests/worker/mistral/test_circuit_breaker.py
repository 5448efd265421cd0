"""When a process stops asking, and how it begins again."""

from __future__ import annotations

import random

import pytest

from labelmill.contracts.errors import LabelmillError, MalformedAnswer, RateLimited, RemoteUnavailable, RequestRefused
from labelmill_worker.mistral.breaker import MAX_PAUSE_S, CircuitBreaker

DOWN = RemoteUnavailable("503")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(3, clock=clock, rng=random.Random(1))


def pause_of(breaker: CircuitBreaker) -> float:
    with pytest.raises(RemoteUnavailable) as refused:
        breaker.check()
    return refused.value.retry_after_s or 0.0


def test_faults_in_a_row_open_it_and_one_good_answer_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    for outcome in (DOWN, MalformedAnswer("html"), None, DOWN, DOWN):
        breaker.record(outcome)
        breaker.check()
    breaker.record(DOWN)
    assert 0.5 <= pause_of(breaker) <= 1


@pytest.mark.parametrize("answer", [RequestRefused("no", 422), RateLimited("later")], ids=repr)
def test_a_refusal_is_an_answer(breaker: CircuitBreaker, answer: LabelmillError) -> None:
    for _ in range(9):
        breaker.record(DOWN)
        breaker.record(answer)
    breaker.check()


def test_after_the_pause_one_request_probes_and_its_answer_closes_the_circuit(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    for _ in range(3):
        breaker.record(DOWN)
    clock.now += 1.0
    breaker.check()
    assert pause_of(breaker) > 0
    breaker.record(None)
    for _ in range(5):
        breaker.check()


def test_every_probe_that_fails_doubles_the_pause_up_to_a_limit(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.record(DOWN)
    pauses = []
    for _ in range(8):
        pauses.append(pause_of(breaker))
        clock.now += pauses[-1]
        breaker.check()
        breaker.record(DOWN)
    for number, pause in enumerate(pauses):
        longest = min(MAX_PAUSE_S, 2.0**number)
        assert longest / 2 <= pause <= longest


def test_requests_that_were_under_way_when_it_opened_do_not_prolong_the_pause(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    for _ in range(3):
        breaker.record(DOWN)
    pause_s = pause_of(breaker)
    for _ in range(50):
        breaker.record(DOWN)
    assert pause_of(breaker) == pause_s


def test_a_probe_that_never_reports_is_not_waited_for_for_ever(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.record(DOWN)
    clock.now += 1.0
    breaker.check()
    clock.now += 61.0
    breaker.check()


def test_a_probe_that_is_answered_malformed_lets_the_next_request_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.record(DOWN)
    clock.now += 1.0
    for _ in range(5):
        breaker.check()
        assert pause_of(breaker) > 0
        breaker.record(MalformedAnswer("cut short"))
    breaker.check()
    breaker.record(None)
    for _ in range(5):
        breaker.check()


def test_who_is_held_back_is_told_the_latest_reason(breaker: CircuitBreaker) -> None:
    for reason in ("Mistral is overloaded", "Mistral cannot be reached: Connection refused", "Mistral did not answer"):
        breaker.record(RemoteUnavailable(reason))
    with pytest.raises(RemoteUnavailable, match=r"^Mistral did not answer \(for 3 requests in a row: none is sent"):
        breaker.check()
