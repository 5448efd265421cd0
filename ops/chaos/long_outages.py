"""Outages of minutes, with the leases and sweeps of production: `make chaos-long`. Each has a stack of its own."""

from __future__ import annotations

from dataclasses import dataclass

from command import Saying
from faults import all_faults
from scenario import Injection, Scenario

_BEGINS_S = 1.5
_ACCEPTED = Saying(0, "Redis")
_REFUSED = Saying(7, "database")


@dataclass(frozen=True)
class LongOutage:
    """`saying`: what a producer's command line must answer meanwhile."""

    fault: str
    database: str
    work: tuple[str, ...]
    lasts_s: float
    saying: Saying

    def scenario(self, number: int) -> Scenario:
        """As a seed of its own number."""
        assert self.fault in all_faults()  # noqa: S101 - a slip of the pen in the table below
        injection = Injection(0, _BEGINS_S, self.fault, self.lasts_s)
        return Scenario(number, self.database, self.work, (injection,))


OUTAGES = (
    LongOutage("Redis refuses connections", "sqlite", ("classify", "classify"), 130, _ACCEPTED),
    LongOutage("Redis killed", "postgresql", ("classify", "embedding"), 130, _ACCEPTED),
    LongOutage("Redis swallows what it is sent", "postgresql", ("classify", "factory"), 130, _ACCEPTED),
    LongOutage("Redis frozen", "sqlite", ("classify", "prompt"), 130, _ACCEPTED),
    LongOutage("Redis full", "sqlite", ("classify", "embedding"), 60, _ACCEPTED),
    LongOutage("PostgreSQL refuses connections", "postgresql", ("classify", "embedding"), 60, _REFUSED),
    LongOutage("PostgreSQL swallows what it is sent", "postgresql", ("classify", "classify"), 60, _REFUSED),
    LongOutage("PostgreSQL restarted", "postgresql", ("classify", "factory"), 60, _REFUSED),
    LongOutage("SQLite locked by another process", "sqlite", ("classify", "classify"), 60, _REFUSED),
    LongOutage("disk full", "sqlite", ("classify", "classify"), 60, _REFUSED),
    LongOutage("kill everything", "sqlite", ("classify", "embedding"), 30, _ACCEPTED),
    LongOutage("kill everything", "postgresql", ("classify", "factory"), 30, _REFUSED),
    LongOutage("Mistral: refuses connections", "sqlite", ("classify", "embedding"), 130, Saying(0, "")),
    LongOutage("the clock is set ahead by two hours", "sqlite", ("classify", "factory"), 6, Saying(0, "")),
    LongOutage("the clock is set ahead by two hours", "postgresql", ("classify", "embedding"), 6, Saying(0, "")),
    LongOutage("the clock is set back by two hours", "sqlite", ("classify", "embedding"), 6, Saying(0, "")),
    LongOutage("the clock is set back by two hours", "postgresql", ("classify", "factory"), 6, Saying(0, "")),
)
