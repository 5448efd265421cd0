"""Batch jobs that come to a bad end at Mistral, and results that are not what they should be: what was answered and can
be read is kept, the rest is asked again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from remote_batches import BatchTrouble, Line
from rig import Rig

from faults import Heal, InjectedFault

_STATUSES = (429, 500, 503)


def _with(make: Callable[[random.Random], BatchTrouble]) -> Callable[[Rig, random.Random], Heal]:
    def begin(rig: Rig, rng: random.Random) -> Heal:
        added = make(rng)
        rig.mistral.batches.troubles.append(added)

        def end() -> None:
            if added in rig.mistral.batches.troubles:
                rig.mistral.batches.troubles.remove(added)

        return end

    return begin


def _dropped(line: Line) -> list[Line]:
    del line
    return []


def _failed(line: Line) -> list[Line]:
    response: dict[str, Any] = {"status_code": _STATUSES[len(str(line)) % len(_STATUSES)], "body": None}
    return [line | {"response": response, "error": "rate limited"}]


def _fault(name: str, *, recovery_s: float = 0.0, **trouble: Any) -> InjectedFault:
    made = _with(lambda _: BatchTrouble(name, **trouble))
    return InjectedFault(f"Mistral: batch jobs {name}", made, (1.0, 4.0), recovery_s=recovery_s)


def _early(name: str, status: str) -> InjectedFault:
    made = _with(lambda rng: BatchTrouble(name, ends=status, share=rng.random()))
    return InjectedFault(f"Mistral: batch jobs {name}", made, (1.0, 4.0))


FAULTS = (
    _early("expire", "TIMEOUT_EXCEEDED"),
    _early("fail", "FAILED"),
    _early("are cancelled elsewhere", "CANCELLED"),
    # a job counts as gone after half a minute, and the pauses between looks double
    _fault("vanish", loses="job", recovery_s=90.0),
    _fault("end without files", loses="files"),
    _fault("lose their results", loses="contents"),
    _fault("drop lines", spoil=_dropped, is_spoilt=True),
    _fault("repeat lines", spoil=lambda line: [line, line]),
    _fault("forget ids", spoil=lambda line: [line | {"custom_id": None}], is_spoilt=True),
    _fault("have failed lines", spoil=_failed, is_spoilt=True),
)
