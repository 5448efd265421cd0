"""A body has the rest of its call's time, and more with every byte that arrives."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest

from labelmill_worker.mistral import deadline
from labelmill_worker.mistral.deadline import MIN_BYTES_PER_S, call_within, cut_late_bodies


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


class Body(httpx2.SyncByteStream):
    """Parts of so many bytes, each after so many seconds."""

    def __init__(self, clock: Clock, part_bytes: int, every_s: float, parts: int) -> None:
        self._clock, self._part, self._every_s, self._parts = clock, b"x" * part_bytes, every_s, parts

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._parts):
            self._clock.now += self._every_s
            yield self._part


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(deadline.time, "monotonic", made.monotonic)
    return made


def opened(body: Body) -> httpx2.Response:
    """A response whose headers came at once, to a call that has 10 s."""
    response = httpx2.Response(200, stream=body)
    call_within(lambda: cut_late_bodies(response), 10)
    return response


def test_a_large_body_that_flows_takes_longer_than_the_call_may(clock: Clock) -> None:
    body = Body(clock, part_bytes=2 * MIN_BYTES_PER_S, every_s=1.0, parts=100)
    assert len(opened(body).read()) == 200 * MIN_BYTES_PER_S


def test_a_body_that_drips_in_is_cut(clock: Clock) -> None:
    body = Body(clock, part_bytes=10, every_s=1.0, parts=100)
    began = clock.now
    with pytest.raises(httpx2.ReadTimeout):
        opened(body).read()
    assert 10 <= clock.now - began < 13


def test_a_reader_that_takes_its_time_between_parts_loses_none(clock: Clock) -> None:
    arrived = 0
    for part in opened(Body(clock, part_bytes=10, every_s=0.01, parts=50)).iter_raw():
        arrived += len(part)
        clock.now += 60  # answers are written to the database
    assert arrived == 500
