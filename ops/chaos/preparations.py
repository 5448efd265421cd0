"""Preparations that fill every slot that long work may have, for as long as the other jobs of the seed run."""

from __future__ import annotations

import random
from collections.abc import Sequence

import orjson
from rig import CONCURRENCY, WORKERS, Rig
from workload import ENDED, Expected, Work

PREPARATIONS = "preparations"
_COUNT = WORKERS * CONCURRENCY + 2  #: More than there are slots of any kind.


class Preparations(Work):
    """They end only after the other jobs have: what these need must not wait behind them."""

    def __init__(self, rig: Rig, name: str, rng: random.Random) -> None:
        super().__init__(rig, name, rng)
        self.beside: Sequence[Work] = ()
        self.source = rig.folder / f"held-{name}.jsonl"
        rows = ({"t": f"{name} say {number}", "l": rng.choice("abc")} for number in range(60))
        self.source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        rig.hold.touch()

    def advance(self) -> None:
        client = self.rig.client
        while len(self.jobs) < _COUNT:
            name = f"{self.name}-{len(self.jobs)}"
            with self.submitting():
                job_id = self.found("datasets", name) or (
                    client.prepare(name, str(self.source), targets=["intent=l"], text="t").id
                )
            self.jobs.append(job_id)
        if all(work.ended for work in self.beside):
            self.rig.hold.unlink(missing_ok=True)
        self.ended = all(self.state_of(job) in ENDED for job in self.jobs)

    def expected(self) -> Expected:
        return {}
