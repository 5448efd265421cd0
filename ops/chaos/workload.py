"""The jobs under test, submitted as a producer does, and what must come of each row."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import orjson
from rig import Rig
from sqlalchemy import text
from stand_in import REFUSED_WORD, label_of

from labelmill import classify_submission, prepare_submission, train_submission
from labelmill.contracts.batch_writer import BatchWriter
from labelmill.contracts.database import reading

ENDED = {"ready", "succeeded", "completed", "failed", "cancelled", "paused"}
_CHUNK_TEXTS = 120  # so that a few thousand texts are many chunks
SLOWEST_SUBMISSION_S = 45.0  #: A producer has its answer by then; SQLite's lock is waited for up to 30 s.


class Work(ABC):
    """Something submitted step by step. `jobs` are those of it that exist; `truth` is what each batch must hold."""

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

    def state_of(self, job_id: str) -> str:
        """The job's state, for a producer that looks."""
        return str(self.rig.client.status(job_id)["state"])

    @contextmanager
    def _submitting(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        if (took_s := time.monotonic() - began) > SLOWEST_SUBMISSION_S:
            self.rig.findings.append(f"{self.name}: a submission took {took_s:.0f} s")

    def _found(self, table: str) -> str | None:
        """The job of this name, if a submission that seemed to fail had gone through after all."""
        with reading(self.rig.client.engine) as connection:
            query = text(f"SELECT id FROM {table} WHERE name = :name")  # noqa: S608 - a name of ours
            return connection.scalar(query, {"name": self.name})


class Classify(Work):
    """One batch of a model known by its id alone: repeated, blank and refused texts among many good ones."""

    def __init__(self, rig: Rig, name: str, rng: random.Random, model: str | None = None) -> None:
        super().__init__(rig, name, rng)
        self.model = model or "ft:classifier:chaos:known"
        self.rows = [(f"{name}-{number}", content) for number, content in enumerate(_texts(name, rng))]
        self.source = rig.folder / f"{name}.jsonl"
        self.source.write_bytes(b"".join(orjson.dumps({"id": i, "text": t}) + b"\n" for i, t in self.rows))

    def advance(self) -> None:
        if not self.jobs:
            with self._submitting():
                batch = self.rig.client.classify(
                    str(self.source), self.model, id_column="id", idempotency_key=self.name, multi=()
                )
            self.jobs.append(batch.id)
            self.truth[batch.id] = self.rows
        self.ended = self.state_of(self.jobs[0]) in ENDED


class Pipeline(Work):
    """The main job: a dataset, a training at Mistral, then an evaluation and a batch with the new model."""

    def __init__(self, rig: Rig, name: str, rng: random.Random) -> None:
        super().__init__(rig, name, rng)
        self.source = rig.folder / f"{name}.jsonl"
        rows = [f"{name} say {number} {rng.choice('abcdefgh') * rng.randint(1, 30)}" for number in range(900)]
        self.source.write_bytes(b"".join(orjson.dumps({"t": one, "l": label_of(one)}) + b"\n" for one in rows))
        self.rows = len(rows)
        self._classify: Classify | None = None

    def advance(self) -> None:
        client = self.rig.client
        if len(self.jobs) == 0:
            with self._submitting():
                found = self._found("datasets") or prepare_submission.submit_prepare(
                    client.engine, client.sender, client.settings, name=self.name, source=str(self.source),
                    targets=["intent=l"], text="t", warn=client.warnings.append,
                )  # fmt: skip
            self.jobs.append(found)
        if len(self.jobs) == 1 and self._has_ended_well(0):
            with self._submitting():
                found = self._found("trainings") or train_submission.submit_training(
                    client.engine, client.sender, name=self.name, dataset=self.name, method="factory", yes=True,
                    warn=client.warnings.append,
                )  # fmt: skip
            self.jobs.append(found)
        if len(self.jobs) == 2 and self._has_ended_well(1):
            with self._submitting():
                self.jobs.append(client.evaluate(self.name, self.name).id)
        if len(self.jobs) >= 3:
            self._classify = self._classify or Classify(self.rig, f"{self.name}-texts", self.rng, self.name)
            self._classify.advance()
            self.jobs[3:] = self._classify.jobs
            self.truth = self._classify.truth
            self.ended = self.ended or (self._classify.ended and self.state_of(self.jobs[2]) in ENDED)

    def _has_ended_well(self, number: int) -> bool:
        state = self.state_of(self.jobs[number])
        if state in ENDED - {"ready", "succeeded"}:
            self.ended = True  # the checker says what is wrong with it
        return state in {"ready", "succeeded"}


def _texts(name: str, rng: random.Random) -> list[str]:
    texts: list[str] = []
    for number in range(rng.randint(900, 1500)):
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


def small_chunks() -> None:
    """Let a batch of a thousand texts be as many chunks as one of a million usually is."""
    classify_submission.BatchWriter = partial(BatchWriter, chunk_texts=_CHUNK_TEXTS)  # type: ignore[misc,assignment]


def make_work(kind: str, rig: Rig, name: str, rng: random.Random) -> Work:
    """`classify` or `pipeline`."""
    return {"classify": Classify, "pipeline": Pipeline}[kind](rig, name, rng)
