"""The faults, a file for each family. Each is a `Fault`: it begins on a rig and hands back what heals it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from rig import Rig

Heal = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """`begin` breaks something and returns what makes it whole, or None when nothing has to be."""

    name: str
    begin: Callable[[Rig, random.Random], Heal | None]
    lasts_s: tuple[float, float] = (0.0, 0.0)  #: Shortest and longest.
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    needs_clock: bool = False  #: Only for a stack whose clock can be set.


def all_faults() -> dict[str, Fault]:
    """Every fault by its name."""
    from faults import broker, clock, database, disk, jobs, messages, mistral, processes  # noqa: PLC0415 - they import this

    families = (processes, broker, database, mistral, jobs, messages, disk, clock)
    return {fault.name: fault for family in families for fault in family.FAULTS}
