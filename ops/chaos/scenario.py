"""From a seed to what happens: the database, the work, and which fault begins when and lasts how long."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from faults import all_faults

_WORK = (("classify",), ("classify", "classify"), ("pipeline",), ("pipeline",), ("pipeline", "classify"))
_FIRST_S, _LAST_S = 0.2, 4.5  #: Faults begin within this span.


@dataclass(frozen=True)
class Injection:
    """One fault of a schedule."""

    at_s: float
    fault: str
    lasts_s: float

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.at_s:.1f} s {self.fault}" + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


@dataclass(frozen=True)
class Scenario:
    """What one seed does."""

    seed: int
    database: str
    work: tuple[str, ...]
    injections: tuple[Injection, ...]

    def rng(self, what: str) -> random.Random:
        """Dice of its own for each use, so that one use more does not change the others."""
        return random.Random(f"{self.seed}/{what}")

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.database}, {' + '.join(self.work)}: {'; '.join(map(str, self.injections))}"


def scenario_of(seed: int, databases: Sequence[str], only: Sequence[str] = ()) -> Scenario:
    """The same for the same arguments. `only`: draw from these faults alone."""
    rng = random.Random(seed)
    wanted = [fault for name, fault in all_faults().items() if not only or name in only]
    usable = [one for one in databases if any(one in fault.databases for fault in wanted)]
    if not usable:
        raise SystemExit(f"these faults are not of {' or '.join(databases)}")
    database = usable[seed % len(usable)]
    work = rng.choice(_WORK)
    faults = {name: fault for name, fault in all_faults().items() if database in fault.databases}
    names = [name for name in faults if not only or name in only]
    injections = []
    for _ in range(1 if len(names) == 1 else rng.choice((1, 2, 2, 3, 4))):
        name = rng.choice(names)
        lasts_s = rng.uniform(*faults[name].lasts_s)
        injections.append(Injection(round(rng.uniform(_FIRST_S, _LAST_S), 1), name, round(lasts_s, 1)))
    return Scenario(seed, database, work, tuple(sorted(injections, key=lambda one: one.at_s)))
