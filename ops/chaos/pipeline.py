"""The main job under test: a dataset, a training by one of the methods, an evaluation, a batch with the new model."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import orjson
from answers import label_of, tags_of
from preparations import PREPARATIONS, Preparations
from rig import Rig
from stand_in import CLASSIFICATIONS, COMPLETIONS, EMBEDDINGS
from workload import BATCH_MODE, ENDED, IN_BATCH_MODE, Classify, Expected, Work

STEPS = ("preparation", "training", "evaluation", "batch")  #: A pipeline's jobs, in order.


@dataclass(frozen=True)
class PipelineKind:
    """A way to get a model and what it is then asked with."""

    method: str
    targets: tuple[str, ...]
    path: str  #: The call that classifies.
    rows: int  #: Of the dataset.
    texts: tuple[int, int]  #: Of the batch.
    options: dict[str, Any]
    mode: str = "realtime"

    @property
    def is_nearest(self) -> bool:
        """Whether every text is embedded to choose the examples it is shown."""
        return self.options.get("shot_selection") == "nearest"


_BOTH = ("intent", "tags")
KINDS = {
    "factory": PipelineKind("factory", ("intent",), CLASSIFICATIONS, 900, (900, 1500), {}),
    "factory, tags": PipelineKind(
        "factory", _BOTH, CLASSIFICATIONS, 900, (900, 1500), {}
    ),  # whose thresholds are tuned
    "embedding": PipelineKind("embedding", _BOTH, EMBEDDINGS, 500, (500, 900), {}),
    "prompt": PipelineKind("prompt", _BOTH, COMPLETIONS, 300, (80, 160), {"shots": 1}),
    "prompt, nearest": PipelineKind(
        "prompt", ("intent",), COMPLETIONS, 300, (60, 120), {"shots": 1, "shot_selection": "nearest"}
    ),
}
KINDS |= {f"{name}{BATCH_MODE}": replace(KINDS[name], mode="batch") for name in ("embedding", "prompt")}


class Pipeline(Work):
    """`jobs` are in the order of `STEPS`."""

    def __init__(self, rig: Rig, name: str, rng: random.Random, kind: PipelineKind) -> None:
        super().__init__(rig, name, rng)
        self.kind, self.targets, self.mode = kind, kind.targets, kind.mode
        self.calibrates = rng.random() < 0.5
        self.source = rig.folder / f"{name}.jsonl"
        self.texts = [f"{name} say {at} {rng.choice('abcdefgh') * rng.randint(1, 30)}" for at in range(kind.rows)]
        rows = ({"t": one, "l": label_of(one), "g": tags_of(one)} for one in self.texts)
        self.source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        self._classify: Classify | None = None

    def advance(self) -> None:
        client = self.rig.client
        if len(self.jobs) == 0:
            with self.submitting():
                columns = {"intent": "intent=l", "tags": "tags=g:multi"}
                self.jobs.append(
                    self.found("datasets")
                    or client.prepare(
                        self.name, str(self.source), targets=[columns[target] for target in self.targets], text="t"
                    ).id
                )
        if len(self.jobs) == 1 and self._has_ended_well(0):
            with self.submitting():
                self.jobs.append(
                    self.found("trainings")
                    or client.train(
                        self.name, self.name, method=self.kind.method, yes=True, mode=self.mode, **self.kind.options
                    ).id
                )
        if len(self.jobs) == 2 and self._has_ended_well(1):
            with self.submitting():
                self.jobs.append(client.evaluate(self.name, self.name, calibrate=self.calibrates, mode=self.mode).id)
        if len(self.jobs) >= 3 and (self._classify is not None or self._has_ended_well(2)):
            self._classify = self._classify or Classify(
                self.rig,
                f"{self.name}-texts",
                self.rng,
                self.name,
                self.kind.path,
                self.kind.texts,
                self.targets,
                self.mode,
            )
            self._classify.advance()
            self.jobs[3:] = self._classify.jobs
            self.truth = self._classify.truth
            self.ended = self.ended or self._classify.ended

    def split(self, name: str) -> list[dict[str, Any]]:
        """The rows of a split, as they were written; none while there is no dataset."""
        files = self.rig.status(self.jobs[0]).get("files") or {} if self.jobs else {}
        if name not in files:
            return []
        with open(files[name], "rb") as file:  # noqa: PTH123 - the whole of it
            return [orjson.loads(line) for line in file]

    def expected(self) -> Expected:
        splits = ("train", "validation", "test")
        texts = {name: Counter({row["text"]: 1 for row in self.split(name)}) for name in splits}
        asked = texts["test"] + (texts["validation"] if self.calibrates else Counter())
        if self._classify is not None:
            asked += Counter({content: 1 for _, content in self._classify.rows})
        trained: Counter[str] = Counter()
        if self.kind.method == "embedding":
            trained = texts["train"] + texts["validation"]
        elif self.kind.is_nearest:
            trained = texts["train"]
        found = {EMBEDDINGS: trained}
        if "tags" in self.targets and self.kind.method == "factory":
            asked += texts["validation"]
        found[self.kind.path] = asked + found.get(self.kind.path, Counter())
        return found

    def embedded_to_ask(self) -> set[str]:
        """Texts that are embedded before they are asked: again whenever another process asks them."""
        return set(self.expected()[COMPLETIONS]) if self.kind.is_nearest else set()

    def _has_ended_well(self, number: int) -> bool:
        state = self.state_of(self.jobs[number])
        if state in ENDED - {"ready", "succeeded", "completed"}:
            self.ended = True  # the checker says what is wrong with it
        return state in {"ready", "succeeded", "completed"}


def make_work(kind: str, rig: Rig, name: str, rng: random.Random) -> Work:
    """`classify`, the same in batch mode, `preparations` or one of `KINDS`."""
    if kind == IN_BATCH_MODE:
        return Classify(rig, name, rng, mode="batch")
    if kind == PREPARATIONS:
        return Preparations(rig, name, rng)
    return Classify(rig, name, rng) if kind == "classify" else Pipeline(rig, name, rng, KINDS[kind])
