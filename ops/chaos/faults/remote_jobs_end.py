"""Fine-tuning jobs that come to a bad end at Mistral: the training ends with the reason, and nothing is paid again."""

from __future__ import annotations

import random
from collections.abc import Callable

from rig import Rig

from faults import Heal, InjectedFault


def _fate(end: str) -> Callable[[Rig, random.Random], Heal]:
    def begin(rig: Rig, rng: random.Random) -> Heal:
        del rng
        rig.mistral.jobs.fate = end
        rig.doomed = True

        def spare() -> None:
            rig.mistral.jobs.fate = None

        return spare

    return begin


FAULTS = (
    InjectedFault("Mistral: jobs fail", _fate("FAILED"), (0.5, 4.0)),
    InjectedFault("Mistral: jobs are cancelled elsewhere", _fate("CANCELLED"), (0.5, 4.0)),
    InjectedFault("Mistral: jobs vanish", _fate("GONE"), (0.5, 4.0)),
)
