"""The clock of the machine is set ahead or back, and right again later. Only stacks of `make chaos-long` have one."""

from __future__ import annotations

import random
from collections.abc import Callable

from rig import Rig

from faults import Heal, InjectedFault

_HOURS_S = 2 * 3600


def _set(ahead_s: int) -> Callable[[Rig, random.Random], Heal]:
    def begin(rig: Rig, rng: random.Random) -> Heal:
        del rng
        clock = rig.clock
        assert clock is not None  # noqa: S101 - the stack was opened with one
        rig.costs_in_flight(len(rig.workers))  # set ahead, every lease has run out
        clock.set(ahead_s)

        def set_right() -> None:
            rig.costs_in_flight(len(rig.workers))
            clock.set(0)

        return set_right

    return begin


FAULTS = (
    InjectedFault("the clock is set ahead by two hours", _set(_HOURS_S), (5.0, 20.0), needs_clock=True),
    InjectedFault("the clock is set back by two hours", _set(-_HOURS_S), (5.0, 20.0), needs_clock=True),
)
