"""The faults, a file for each family. Each is an `InjectedFault`: it begins on a rig and returns what ends it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from rig import Rig

Heal = Callable[[], None]


@dataclass(frozen=True)
class InjectedFault:
    """`begin` breaks something and returns what repairs it, or None where nothing needs to be repaired."""

    name: str
    begin: Callable[[Rig, random.Random], Heal | None]
    lasts_s: tuple[float, float] = (0.0, 0.0)  #: Shortest and longest.
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    needs_clock: bool = False  #: Only for a stack whose clock can be set.
    recovery_s: float = 0.0  #: So much longer than after others everything may take to end.


def all_faults() -> dict[str, InjectedFault]:
    """Every fault by its name."""
    from faults import batch_jobs_end, broker, clock, database, disk, messages, mistral, processes, remote_jobs_end  # noqa: PLC0415 - they import this

    families = (processes, broker, database, mistral, remote_jobs_end, batch_jobs_end, messages, disk, clock)
    return {fault.name: fault for family in families for fault in family.FAULTS}
