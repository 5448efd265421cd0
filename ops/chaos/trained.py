"""What a pipeline must have left: its dataset, its model, its vectors, its own batches, its evaluation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from answers import TRUTH, vector_of
from pipeline import Pipeline
from queries import query
from rig import Rig
from stand_in import EMBEDDINGS

Rows = list[tuple[str, str]]


def pipeline_findings(rig: Rig, work: Pipeline) -> list[str]:
    """Every broken promise of a pipeline that has come to its evaluation, in words."""
    found = _dataset(rig, work)
    if len(work.jobs) > 1:
        found += _training(rig, work)
    if len(work.jobs) > 2:
        found += _evaluation(rig, work)
    return found


def inner_truth(rig: Rig, work: Pipeline) -> dict[str, Rows]:
    """The batches that classify a split for the pipeline's own sake, with what each must hold."""
    found: dict[str, Rows] = {}

    def add(batch: str | None, split: str) -> None:
        if batch is not None:
            found[batch] = [(str(number), row["text"]) for number, row in enumerate(work.split(split))]

    if len(work.jobs) > 1 and work.kind.method == "factory":
        add(query(rig, "SELECT batch_id FROM trainings WHERE id = ?", work.jobs[1])[0][0], "validation")
    if len(work.jobs) > 2:
        own, calibration = query(
            rig, "SELECT batch_id, calibration_batch_id FROM evaluations WHERE id = ?", work.jobs[2]
        )[0]
        add(own, "test")
        add(calibration, "validation")
    return found


def _dataset(rig: Rig, work: Pipeline) -> list[str]:
    found, dataset = [], rig.status(work.jobs[0])
    if dataset["state"] != "ready":
        return []
    if sum(dataset["splits"].values()) != len(work.texts):
        found.append(f"{work.name}: {dataset['splits']} of {len(work.texts)} rows")
    written: list[str] = []
    for split, path in dataset["files"].items():
        rows = [orjson.loads(line) for line in Path(path).read_bytes().splitlines()]
        written += [row["text"] for row in rows]
        wrong = [row for row in rows if row["labels"] != {name: TRUTH[name](row["text"]) for name in work.targets}]
        if len(rows) != dataset["splits"][split] or wrong:
            found.append(f"{path}: {len(rows)} lines, {len(wrong)} of them wrong")
    if sorted(written) != sorted(work.texts):
        found.append(f"{work.name}: the dataset holds other texts than were submitted")
    return found


def _training(rig: Rig, work: Pipeline) -> list[str]:
    job, found = work.jobs[1], []
    if rig.status(job)["state"] != "succeeded":
        return []
    models = query(rig, "SELECT state, recipe FROM models WHERE name = ?", work.name)
    if len(models) != 1 or models[0][0] != "ready":
        found.append(f"{work.name}: its one training left the versions {[state for state, _ in models]}")
    batches = query(rig, "SELECT count(*) FROM events WHERE message = ?", f"for {job}")[0][0]
    if batches > 1 + (work.kind.method == "prompt"):  # one for vectors, and one that asks for log-probabilities
        found.append(f"{job} opened {batches} batches")
    recipe = models[0][1]
    found += _artifact(rig, work, orjson.loads(recipe) if isinstance(recipe, str) else recipe)
    return found + _vectors(rig, work)


def _artifact(rig: Rig, work: Pipeline, recipe: dict[str, Any] | None) -> list[str]:
    if not recipe or "file" not in recipe:
        return [f"{work.name}: a head without a file"] if work.kind.method == "embedding" else []
    content = (rig.data / recipe["file"]).read_bytes()
    right = hashlib.sha256(content).hexdigest() == recipe["sha256"]
    return [] if right else [f"{recipe['file']} is not what the training wrote down"]


def _vectors(rig: Rig, work: Pipeline) -> list[str]:
    """Each text to train on has its vector, and it is the one that Mistral gave."""
    if work.kind.method != "embedding":
        return []
    texts = list(work.expected()[EMBEDDINGS])
    trained = {row["text"] for split in ("train", "validation") for row in work.split(split)}
    there = dict(query(rig, "SELECT digest, data FROM vectors"))
    found = []
    for text in (one for one in texts if one in trained):
        data = there.get(hashlib.blake2b(text.encode(), digest_size=16).digest())
        if data is None:
            found.append(f"{work.name}: {text!r} has no vector")
        elif bytes(data) != np.array(vector_of(text), "<f2").tobytes():
            found.append(f"{work.name}: the vector of {text!r} is another one")
    return found[:3]


def _evaluation(rig: Rig, work: Pipeline) -> list[str]:
    job, found = work.jobs[2], []
    status = rig.status(job)
    if status["state"] != "completed":
        return []
    for column, count in (("batch_id", 1), ("calibration_batch_id", int(work.calibrates))):
        if query(rig, f"SELECT count({column}) FROM evaluations WHERE id = ?", job)[0][0] != count:  # noqa: S608 - a name of ours
            found.append(f"{job}: not {count} of {column}")
    batches = query(rig, "SELECT count(*) FROM events WHERE message = ?", f"for {job}")[0][0]
    if batches != 1 + work.calibrates:
        found.append(f"{job} opened {batches} batches")
    for target in work.targets:
        metrics = status["metrics"][target]
        score = metrics["accuracy" if target == "intent" else "micro_f1"]
        if score != 1.0:
            found.append(f"{work.name}: the evaluation gave {target} a score of {score}")
    return found
