"""The jobs under test, submitted as a producer does, and what must come of each row."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from answers import REFUSED_WORD
from rig import Rig
from sqlalchemy import text
from stand_in import CLASSIFICATIONS, KNOWN_MODEL

from labelmill.core.database import reading

ENDED = {"ready", "succeeded", "completed", "failed", "cancelled", "paused"}
BATCH_MODE = ", batch mode"  #: Ends the name of work whose requests go by batch jobs.
IN_BATCH_MODE = f"classify{BATCH_MODE}"
SLOWEST_SUBMISSION_S = 45.0  #: A producer has its answer by then; SQLite's lock is waited for up to 30 s.

Expected = dict[str, Counter[str]]
"""By kind of call: how often each text may be paid for when nothing goes wrong."""


class Work(ABC):
    """Something submitted step by step. `jobs` are those of it that exist; `truth` is what each batch must hold."""

    targets: tuple[str, ...] = ("intent",)
    mode = "realtime"  #: How its texts are sent.

    def __init__(self, rig: Rig, name: str, rng: random.Random) -> None:
        self.rig = rig
        self.name = name
        self.rng = rng
        self.jobs: list[str] = []
        self.truth: dict[str, list[tuple[str, str]]] = {}  #: batch → (id, text) of each row
        self.ended = False

    @abstractmethod
    def advance(self) -> None:
        """Submit what can be submitted now. Raises LabelmillError when that must be tried again."""

    @abstractmethod
    def expected(self) -> Expected:
        """What is to be paid for."""

    def state_of(self, job_id: str) -> str:
        """The job's state, as a producer reads it."""
        return str(self.rig.status(job_id)["state"])

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """A submission that must not take long, whatever is broken."""
        began = time.monotonic()
        yield
        if (took_s := time.monotonic() - began) > SLOWEST_SUBMISSION_S:
            self.rig.findings.append(f"{self.name}: a submission took {took_s:.0f} s")

    def found(self, table: str, name: str = "") -> str | None:
        """The job of this name, the work's own by default, if a submission that seemed to fail had gone through."""
        with reading(self.rig.client.context.engine) as connection:
            query = text(f"SELECT id FROM {table} WHERE name = :name")  # noqa: S608 - a name of ours
            found: str | None = connection.scalar(query, {"name": name or self.name})
        return found


class Classify(Work):
    """One batch: repeated, blank and refused texts among many good ones. By default of a model known by id alone."""

    def __init__(
        self,
        rig: Rig,
        name: str,
        rng: random.Random,
        model: str = KNOWN_MODEL,
        path: str = CLASSIFICATIONS,
        count: tuple[int, int] = (1400, 2400),
        targets: tuple[str, ...] = ("intent",),
        mode: str = "realtime",
    ) -> None:
        super().__init__(rig, name, rng)
        self.model, self.path, self.targets, self.mode = model, path, targets, mode
        self.rows = [(f"{name}-{number}", one) for number, one in enumerate(_texts(name, rng, rng.randint(*count)))]
        self.source = rig.folder / f"{name}.jsonl"
        self.source.write_bytes(b"".join(orjson.dumps({"id": i, "text": t}) + b"\n" for i, t in self.rows))

    def advance(self) -> None:
        if not self.jobs:
            with self.submitting():
                batch = self.rig.client.classify(
                    str(self.source), self.model, id_column="id", idempotency_key=self.name, multi=(), mode=self.mode
                )
            self.jobs.append(batch.id)
            self.truth[batch.id] = self.rows
        self.ended = self.state_of(self.jobs[0]) in ENDED

    def expected(self) -> Expected:
        return {self.path: Counter({content: 1 for _, content in self.rows})}


def _texts(name: str, rng: random.Random, count: int) -> list[str]:
    texts: list[str] = []
    for number in range(count):
        draw = rng.random()
        if draw < 0.05 and texts:
            texts.append(rng.choice(texts))
        elif draw < 0.06:
            texts.append(rng.choice(("", "  ")))
        elif draw < 0.064:
            texts.append(f"{name} {number} is {REFUSED_WORD}")
        else:
            texts.append(f"{name} text {number} {'ä' * rng.randint(0, 20)}")
    return texts
