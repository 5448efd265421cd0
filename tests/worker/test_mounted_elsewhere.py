"""A producer and two workers that mount one data folder at three paths, and rows that name what is not in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from asked import submit_batch, submit_evaluation, submit_prepare, submit_training
from memory_mistral import MemoryMistral
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, ok
from workshop import Workshop

from labelmill.client import Client
from labelmill.contracts.messages import PREPARE, TRAIN, JobMessage
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import Base, DatasetRow, ModelRow, TrainingRow
from labelmill.services.results.saving import OutputOptions, SaveRequest, save_results
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.tasks import prepare

PRODUCER = "of the producer"


class Mounts(Workshop):
    """One data folder, which each process finds at its own path and nowhere else: each message goes to the next
    of two workers."""

    def __init__(self, engine: Engine, mistral: StrictMistral, redis_url: str, folder: Path) -> None:
        self.plane = MemoryMistral()
        super().__init__(engine, mistral, redis_url, folder / PRODUCER, self.plane)
        self.top = folder
        folder.mkdir()
        self.producer = self.resources.settings
        self.workers = [
            replace(self.resources, settings=self.producer.model_copy(update={"data_dir": str(folder / name)}))
            for name in ("of one worker", "of another/worker")
        ]
        self.places = [self.producer.data_path, *(one.settings.data_path for one in self.workers)]
        self._turns = cycle(self.workers)

    def mount(self, place: Path) -> Path:
        """Let the folder lie at `place` alone."""
        at = next((one for one in self.places if one.exists()), None)
        place.parent.mkdir(parents=True, exist_ok=True)
        if at is not None:
            at.rename(place)
        return place

    def step(self) -> None:
        if not self.queue.waiting:  # what recovery would send
            with reading(self.engine) as connection:
                self.queue.waiting += [
                    (TRAIN, JobMessage(job_id=one)) for one in connection.scalars(select(TrainingRow.id))
                ]
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
        self.resources: ProcessResources = next(self._turns)
        self.mount(self.resources.settings.data_path)
        if self.queue.waiting[0][0] == PREPARE:
            prepare.run(self.resources, self.queue.waiting.popleft()[1])
        else:
            super().step()

    def run(self, job_id: str) -> dict[str, Any]:
        while (done := self.status(job_id))["state"] in ("queued", "uploading", "preparing"):
            self.step()
        done = super().run(job_id)
        self.mount(self.producer.data_path)
        return done

    def prepare(self) -> dict[str, Any]:
        source = self.top / "rows.jsonl"
        source.write_text("".join(json.dumps({"text": text, "intent": label_of(text)}) + "\n" for text in TEXTS))
        self.mount(self.producer.data_path)
        return self.run(
            submit_prepare(
                self.engine,
                self.sender,
                self.producer,
                name="small",
                source=str(source),
                split="60/20/20",
                targets=["intent=intent"],
            )
        )

    def train(self, method: str, **options: Any) -> dict[str, Any]:
        given = {"name": method, "dataset": "small", "method": method, "yes": True} | options
        return self.run(submit_training(self.engine, self.sender, **given))

    def close(self) -> None:
        for worker in self.workers:
            self.resources = worker
            super().close()


TEXTS = [f"text {number:03d} {'x' * (number % 4)}" for number in range(200)]


@pytest.fixture
def mounts(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Mounts]:
    made = Mounts(engine, mistral, redis_url, tmp_path / "mounts")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("method", "options"),
    [("embedding", {}), ("prompt", {"shots": 1, "shot_selection": "nearest"}), ("factory", {"multi": True})],
)
def test_every_host_may_mount_the_data_folder_where_it_likes(
    mounts: Mounts, database_url: str, method: str, options: dict[str, Any]
) -> None:
    multi = options.pop("multi", False)
    if multi:  # thresholds of multi-label targets are tuned on the validation split
        mounts.mistral.faults.append(
            lambda texts, body: ok(
                [{"intent": {"scores": {label: float(label == label_of(text)) for label in LABELS}}} for text in texts]
            )
        )
    dataset = mounts.prepare()
    assert dataset["state"] == "ready", dataset
    if multi:
        _make_multi_label(mounts, dataset)
    training = mounts.train(method, **options)
    assert training["state"] == "succeeded", training
    evaluation = mounts.run(submit_evaluation(mounts.engine, mounts.sender, model=method, dataset="small"))
    assert evaluation["state"] == "completed", evaluation
    assert evaluation["summary"]["seen_in_training"] == 0
    texts = [f"new {number} {'x' * (number % 4)}" for number in range(30)]
    source = mounts.top / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    batch = mounts.run(submit_batch(mounts.engine, mounts.sender, source=str(source), model=method))
    assert batch["rows"]["labelled"] == 30, batch

    client = Client(mounts.producer.model_copy(update={"database_url": database_url}))
    files = client.status(dataset["id"])["files"]
    rows = [json.loads(line) for line in Path(files["test"]).read_text().splitlines()]
    assert len(rows) == dataset["splits"]["test"]
    output = mounts.top / "rows.of.evaluation.jsonl"
    save_results(client.context, SaveRequest(evaluation["id"], output, OutputOptions(keep=["labels"])))
    client.close()
    assert [json.loads(line)["keep"]["labels"] for line in output.read_text().splitlines()] == [
        r["labels"] for r in rows
    ]
    assert _rows_that_hold(mounts.engine, "of the producer", "of one worker", "of another") == []


def _make_multi_label(mounts: Mounts, dataset: dict[str, Any]) -> None:
    with writing(mounts.engine) as connection:
        schema = [{"name": "intent", "labels": sorted(LABELS), "multi": True}]
        connection.execute(update(DatasetRow).values(label_schema=schema))
    for reference in dataset["files"].values():
        file = mounts.producer.data_path / reference
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(r | {"labels": {"intent": [r["labels"]["intent"]]}}) + "\n" for r in rows))


def _rows_that_hold(engine: Engine, *words: str) -> list[tuple[str, Any]]:
    with reading(engine) as connection:
        rows = [
            (table.name, tuple(row))
            for table in Base.metadata.sorted_tables
            for row in connection.execute(select(table))
        ]
    return [row for row in rows if any(word in str(row) for word in words)]


OUTSIDE = ["/proc/self/environ", "../secret.jsonl", "LINK", "datasets/prep_other/train.jsonl"]


@pytest.mark.parametrize(
    ("method", "outside"),
    [*(("embedding", one) for one in OUTSIDE), ("prompt", "/proc/self/environ"), ("factory", "/proc/self/environ")],
)
def test_a_dataset_that_names_a_file_outside_of_its_folder_is_not_trained_on(
    mounts: Mounts, mistral: StrictMistral, method: str, outside: str
) -> None:
    dataset = mounts.prepare()
    _point_to(mounts, dataset, outside)
    training = mounts.train(method, shots=1) if method == "prompt" else mounts.train(method)
    assert training["state"] == "failed"
    assert "is not a file inside the data folder's datasets/" in training["error"]
    assert not mounts.plane.files
    assert not mistral.requests


@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_dataset_that_names_a_file_outside_of_its_folder_is_not_evaluated_on(
    mounts: Mounts, mistral: StrictMistral, outside: str
) -> None:
    dataset = mounts.prepare()
    _point_to(mounts, dataset, outside)
    mounts.model("m", [{"name": "intent", "labels": sorted(LABELS), "multi": False}])
    evaluation = mounts.run(submit_evaluation(mounts.engine, mounts.sender, model="m", dataset="small"))
    assert evaluation["state"] == "failed"
    assert "is not a file inside the data folder's datasets/" in evaluation["error"]
    assert not mistral.requests


def _point_to(mounts: Mounts, dataset: dict[str, Any], outside: str) -> None:
    data = mounts.producer.data_path
    row = json.dumps({"text": "secret", "labels": {"intent": "alpha"}}) + "\n"
    other = data / "datasets/prep_other"
    other.mkdir()
    for file in (mounts.top / "secret.jsonl", other / "train.jsonl"):
        file.write_text(row)
    (data / "datasets" / dataset["id"] / "link.jsonl").symlink_to(mounts.top / "secret.jsonl")
    named = outside.replace("LINK", f"datasets/{dataset['id']}/link.jsonl")
    with writing(mounts.engine) as connection:
        connection.execute(update(DatasetRow).values(files=dict.fromkeys(dataset["files"], named)))


@pytest.mark.parametrize("outside", ["/proc/self/environ", "../secret.zip", "datasets/x.zip", "models/link.zip"])
def test_a_model_that_names_a_file_outside_of_the_models_folder_fails_its_batch(
    mounts: Mounts, mistral: StrictMistral, outside: str
) -> None:
    mounts.prepare()
    assert mounts.train("embedding")["state"] == "succeeded"
    (mounts.producer.data_path / "models/link.zip").symlink_to(mounts.top / "rows.jsonl")
    with writing(mounts.engine) as connection:
        recipe = connection.scalar(select(ModelRow.recipe).where(ModelRow.name == "embedding"))
        connection.execute(
            update(ModelRow).where(ModelRow.name == "embedding").values(recipe=(recipe or {}) | {"file": outside})
        )
    sent = mistral.requests
    source = mounts.top / "rows.jsonl"
    batch = mounts.run(submit_batch(mounts.engine, mounts.sender, source=str(source), model="embedding"))
    assert (batch["state"], mistral.requests) == ("failed", sent)
    assert f"'{outside}' is not a file inside the data folder's models/" in batch["error"]
