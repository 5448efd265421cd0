"""From a seed to what happens: the database, the work, and which fault begins when and lasts how long."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from faults import all_faults
from pipeline import KINDS, STEPS
from preparations import PREPARATIONS
from workload import BATCH_MODE, IN_BATCH_MODE

_WORK = (
    ("classify",),
    ("classify", "classify"),
    ("factory",),
    ("factory", "classify"),
    ("factory, tags",),
    ("embedding",),
    ("embedding",),
    ("embedding", "classify"),
    ("prompt",),
    ("prompt, nearest",),
    (PREPARATIONS, "classify"),
    (IN_BATCH_MODE,),
    (IN_BATCH_MODE, "classify"),
    (f"embedding{BATCH_MODE}",),
    (f"prompt{BATCH_MODE}",),
)
_FIRST_S, _LAST_S = 0.2, 3.5  #: Faults begin within this span of a batch …
_INTO_STEP_S = 2.5  #: … and within so much of a pipeline's step.


@dataclass(frozen=True)
class Injection:
    """One fault of a schedule. `step`: of the pipeline, counted from 0, in which it begins."""

    step: int
    at_s: float
    fault: str
    lasts_s: float
    of: str = ""  #: The step's name, for readers.

    def __str__(self) -> str:
        """As it is printed."""
        into = f" into the {self.of}" if self.of else ""
        return f"{self.at_s:.1f} s{into} {self.fault}" + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


@dataclass(frozen=True)
class Scenario:
    """What one seed does."""

    seed: int
    database: str
    work: tuple[str, ...]
    injections: tuple[Injection, ...]

    def rng(self, what: str) -> random.Random:
        """A generator for each use, so that one use more does not change the others."""
        return random.Random(f"{self.seed}/{what}")

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.database}, {' + '.join(self.work)}: {'; '.join(map(str, self.injections))}"


def scenario_of(seed: int, databases: Sequence[str], only: Sequence[str] = (), work: Sequence[str] = ()) -> Scenario:
    """The same for the same arguments. `only`: draw from these faults alone; `work`: these jobs."""
    rng = random.Random(seed)
    wanted = [fault for name, fault in all_faults().items() if not only or name in only]
    usable = [name for name in databases if any(name in fault.databases for fault in wanted)]
    if not usable:
        raise SystemExit(f"these faults are not of {' or '.join(databases)}")
    database = usable[seed % len(usable)]
    chosen = tuple(work) or rng.choice(_WORK)
    faults = {name: fault for name, fault in all_faults().items() if database in fault.databases}
    names = [name for name, fault in faults.items() if name in only or not (only or fault.needs_clock)]
    if not any("factory" in job for job in chosen):
        names = [name for name in names if ": jobs " not in name] or names
    if not any(job.endswith(BATCH_MODE) for job in chosen):
        names = [name for name in names if ": batch jobs " not in name] or names
    injections = []
    for _ in range(1 if len(names) == 1 else rng.choice((1, 2, 2, 3, 4))):
        name = rng.choice(names)
        lasts_s = round(rng.uniform(*faults[name].lasts_s), 1)
        if any(job in KINDS for job in chosen):
            step = rng.choice((0, 1, 1, 2, 2, 3))
            at_s = round(rng.uniform(0, _INTO_STEP_S), 1)
            injections.append(Injection(step, at_s, name, lasts_s, STEPS[step]))
        else:
            injections.append(Injection(0, round(rng.uniform(_FIRST_S, _LAST_S), 1), name, lasts_s))
    return Scenario(
        seed, database, chosen, tuple(sorted(injections, key=lambda injection: (injection.step, injection.at_s)))
    )
