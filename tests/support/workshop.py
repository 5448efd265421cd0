"""Workers without Celery: messages of every kind are carried out one after the other in this process."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import redis
from documents import checked
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from strict_mistral import KEY, LABELS, StrictMistral, label_of

from labelmill.contracts.messages import CLASSIFY, EVALUATE, PREPARE, TRAIN, ChunkMessage, JobMessage
from labelmill.core.database import connect, reading, writing
from labelmill.core.database.tables import DatasetRow, EvaluationRow, ModelRow, ModelTargetRow, TrainingRow
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.core.storage.references import dataset_folder
from labelmill.services.jobs.documents import status_document
from labelmill_worker.ports.control_plane import ControlPlane
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.tasks import classify, evaluate, prepare, train

DEADLINE_S = 90.0
_UNDER_WAY = {"queued", "preparing", "validating", "running", "submitting"}
SCHEMA = [{"name": "intent", "labels": sorted(LABELS), "multi": False}]


class Killed(BaseException):
    """The worker dies here."""


def intent_rows(name: str, count: int) -> list[dict[str, Any]]:
    """Rows of a dataset, labelled as the stand-in for Mistral labels their texts."""
    texts = [f"{name} text {number} {'x' * (number % 4)}" for number in range(count)]
    return [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]


class Queue:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, JobMessage]] = deque()

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        self.waiting += [(task, message) for message in messages]


class Workshop:
    """A database, a queue, a data folder and a worker; `mistral` answers the texts."""

    def __init__(
        self, engine: Engine, mistral: StrictMistral, redis_url: str, folder: Path, plane: ControlPlane | None = None
    ) -> None:
        self.engine, self.mistral, self.folder = engine, mistral, folder
        self.queue = Queue()
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()  # recovery counts what waits there, and an earlier test may have left messages
        self._numbers = count(1)
        self.sender = cast("MessageSender", self.queue)
        values: dict[str, Any] = {
            "broker_url": redis_url,
            "mistral_url": mistral.url,
            "MISTRAL_API_KEY": KEY,
            "lease_s": 15,
            "texts_per_request": 10,
            "max_in_flight": 4,
            "data_dir": str(folder),
            "poll_s": 0.1,
        }
        settings = Settings(**values)
        self.resources = ProcessResources(settings, engine, self.sender, plane)

    def dataset(self, name: str, schema: list[dict[str, Any]], **splits: list[dict[str, Any]]) -> str:
        """A prepared dataset of these rows. Returns its id."""
        dataset_id = f"prep_{next(self._numbers):010x}"
        files = {}
        for split, rows in splits.items():
            files[split] = f"{dataset_folder(dataset_id)}/{split}.jsonl"
            path = self.folder / files[split]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with writing(self.engine) as connection:
            connection.execute(
                insert(DatasetRow).values(
                    id=dataset_id,
                    state="ready",
                    name=name,
                    version=1,
                    spec={},
                    label_schema=schema,
                    files=files,
                    splits={split: len(rows) for split, rows in splits.items()},
                    fingerprint=f"print of {name}",
                )
            )
        return dataset_id

    def split_file(self, name: str, split: str) -> Path:
        """Where a split of the dataset of that name lies."""
        with reading(self.engine) as connection:
            files = connection.scalar(select(DatasetRow.files).where(DatasetRow.name == name))
        return self.folder / str((files or {})[split])

    def model(self, name: str, schema: list[dict[str, Any]] | None, **values: Any) -> int:
        """A fine-tuned model version. Returns its key."""
        columns = {
            "version": 1,
            "promoted": True,
            "method": "factory",
            "remote_model": f"ft:classifier:{name}",
        } | values
        with writing(self.engine) as connection:
            key = connection.execute(
                insert(ModelRow).values(name=name, label_schema=schema, **columns).returning(ModelRow.no)
            ).scalar_one()
            for number, target in enumerate(schema or []):
                connection.execute(insert(ModelTargetRow).values(model_no=key, target=number, name=target["name"]))
        return int(key)

    def run(self, job_id: str) -> dict[str, Any]:
        """Carry out messages until the job has ended."""
        end = time.monotonic() + DEADLINE_S
        while (document := self.status(job_id))["state"] in _UNDER_WAY:
            assert time.monotonic() < end, document
            self.step()
        return document

    def step(self) -> None:
        """Carry out one message."""
        task, message = self.queue.waiting.popleft()
        if task == CLASSIFY:
            assert isinstance(message, ChunkMessage)
            classify.run(self.resources, message)
        elif task == EVALUATE:
            evaluate.run(self.resources, message)
        elif task == PREPARE:
            prepare.run(self.resources, message)
        else:
            assert task == TRAIN
            self._wait_for_no_poll(message.job_id)
            train.run(self.resources, message)

    def _wait_for_no_poll(self, training_id: str) -> None:
        """The queue keeps no countdown, and a poll that comes a tenth of a second early would be dropped for good."""
        soon = TrainingRow.due_at < time.time() + 1
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).where(TrainingRow.id == training_id, soon).values(due_at=None))

    def status(self, job_id: str) -> dict[str, Any]:
        """The job's status document."""
        with reading(self.engine) as connection:
            return dict(checked(status_document(connection, job_id)))

    def close(self) -> None:
        """End the worker's connections and threads."""
        self.resources.close()


@contextmanager
def open_workshop(url: str, mistral: StrictMistral, redis_url: str, folder: Path) -> Iterator[Workshop]:
    """A workshop on the database at `url`."""
    engine = connect(url)
    made = Workshop(engine, mistral, redis_url, folder)
    yield made
    made.close()
    engine.dispose()


class PollingWorkshop(Workshop):
    """Polls trainings and evaluations at once when no message is left, as a sweep would."""

    def step(self) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
            if not self.queue.waiting:
                for task, table in ((TRAIN, TrainingRow), (EVALUATE, EvaluationRow)):
                    open_jobs = select(table.id).where(table.state.in_(("queued", "validating", "running")))
                    self.queue.waiting += [(task, JobMessage(job_id=one)) for one in connection.scalars(open_jobs)]
        super().step()
