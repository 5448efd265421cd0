"""A workshop for trainings by vectors and by prompt: a small dataset, and polls as soon as a message asks for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asked import submit_batch, submit_training
from memory_mistral import MemoryMistral
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of
from workshop import Workshop

from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import EventRow, ModelRow, TrainingRow
from labelmill.report.parts import Part
from labelmill.report.training import parts_of
from labelmill.services import models as registry
from labelmill.services.results.reading import read_results

SCHEMA = [
    {"name": "intent", "labels": sorted(LABELS), "multi": False},
    {"name": "tags", "labels": ["alpha", "even", "odd"], "multi": True},
]


def made_up_row(number: int) -> dict[str, Any]:
    text = f"text {number} {'x' * (number % 4)}"
    tags = ["even" if number % 2 == 0 else "odd", *(["alpha"] if label_of(text) == "alpha" else [])]
    return {"text": text, "labels": {"intent": label_of(text), "tags": tags}}


class School(Workshop):
    """Polls trainings as soon as a message asks for it, and sends the message itself when none comes."""

    def train(self, **options: Any) -> str:
        given: dict[str, Any] = {"name": "m", "dataset": "small", "yes": True} | options
        return submit_training(self.engine, self.sender, **given)

    def classify(self, texts: Sequence[str], model: str = "m", **options: Any) -> str:
        source = self.folder / "texts.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return submit_batch(self.engine, self.sender, source=str(source), model=model, **options)

    def step(self) -> None:
        if not self.queue.waiting:  # what a sweep would do
            with reading(self.engine) as connection:
                open_trainings = select(TrainingRow.id).where(TrainingRow.state.in_(("validating", "running")))
                self.queue.waiting += [(TRAIN, JobMessage(job_id=one)) for one in connection.scalars(open_trainings)]
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
        super().step()

    def history(self, job_id: str) -> str:
        with reading(self.engine) as connection:
            lines = connection.scalars(select(EventRow.message).where(EventRow.job_id == job_id).order_by(EventRow.no))
            return "\n".join(lines)

    def version(self) -> ModelRow:
        with reading(self.engine) as connection:
            return registry.resolve_model(connection, "m")

    def labels(self, batch_id: str, target: str = "intent") -> list[Any]:
        found = [row["predictions"].get(target, {}) for row in read_results(self.engine, batch_id)]
        return [one.get("labels", one.get("label")) for one in found]


def open_school(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> School:
    no_files_no_jobs = MemoryMistral()  # neither vectors nor prompts need them
    made = School(engine, mistral, redis_url, tmp_path, no_files_no_jobs)
    made.dataset(
        "small",
        SCHEMA,
        train=[made_up_row(n) for n in range(120)],
        validation=[made_up_row(n) for n in range(1000, 1040)],
    )
    return made


def parts_of_page(school: School, training_id: str) -> list[Part]:
    """The parts of a training's report."""
    with reading(school.engine) as connection:
        return parts_of(connection, school.status(training_id))
