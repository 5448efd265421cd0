"""Real workers of which one lacks a key or the data folder: the others do the work, and nothing is paid twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forked_workers import ForkedCelery
from sqlalchemy import func, insert, select
from strict_mistral import KEY, LABELS, StrictMistral, label_of

from labelmill.client import Client
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.contracts.messages import QUEUES
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow, ModelTargetRow, UnableWorkerRow, WorkerRow
from labelmill.core.settings import Settings
from labelmill.core.storage.local import LocalStorage
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_worker.inference.models.head import Head

DEADLINE_S = 60.0
RAW, TRAINED = "ft:classifier:stand-in", "trained"
LACKS: dict[str, dict[str, str]] = {
    "no key": {"MISTRAL_API_KEY": ""},
    "a bad key": {"MISTRAL_API_KEY": "refused"},
    "no data folder": {"LABELMILL_DATA_DIR": "elsewhere"},
}


class Fleet:
    """Workers that differ by their environment."""

    def __init__(self, folder: Path, database_url: str, mistral: StrictMistral) -> None:
        self._folder, self.mistral = folder, mistral
        self.redis = EmbeddedRedis(folder / "redis")
        self.redis.start()
        self.data = folder / "data"
        self.environment = {
            "LABELMILL_BROKER_URL": self.redis.url,
            "LABELMILL_DATABASE_URL": database_url,
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": str(self.data),
            "LABELMILL_LEASE_S": "5",
            "LABELMILL_SWEEP_S": "1",
            "LABELMILL_TEXTS_PER_REQUEST": "20",
            "LABELMILL_MAX_IN_FLIGHT": "4",
            "LABELMILL_POLL_S": "0.2",
            "MISTRAL_API_KEY": KEY,
        }
        self._processes: list[ForkedCelery] = []
        given = Settings(broker_url=self.redis.url, database_url=database_url, data_dir=str(self.data))
        self.client = Client(given)

    def start(self, queues: str = "classify", **environment: str) -> None:
        number = len(self._processes)
        command = ["-A", "labelmill_worker.app", "worker", "-Q", queues, "-c", "2", "-n", f"w{number}@%h"]
        log = self._folder / f"process-{number}.log"
        variables = os.environ | self.environment | environment
        self._processes.append(ForkedCelery(command, variables, log, self._folder))

    def until_alive(self, workers: int) -> None:
        def alive() -> bool:
            with reading(self.client.context.engine) as connection:
                return connection.scalar(select(func.count()).select_from(WorkerRow)) == workers

        self.until(alive)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"the condition did not come true in time: {self._logs()}"
            time.sleep(0.05)

    def classify(self, texts: list[str], model: str) -> str:
        source = self._folder / "texts.jsonl"
        source.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
        return self.client.classify(str(source), model=model).id

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "labelmill", *arguments],
            env=os.environ | self.environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def keep_trained_model(self) -> None:
        """A version whose file lies in the data folder. It finds what the stand-in's vectors say."""
        schema = LabelSchema((Target("intent", LABELS),))
        weights = np.zeros((1024, len(LABELS)), np.float32)
        weights[range(len(LABELS)), range(len(LABELS))] = 1.0
        head = Head(schema, [weights], [np.zeros(len(LABELS), np.float32)])
        sha256 = head.save(LocalStorage(self.data), "models/train_0000000001.zip")
        with writing(self.client.context.engine) as connection:
            key = connection.execute(
                insert(ModelRow)
                .values(
                    name=TRAINED,
                    version=1,
                    promoted=True,
                    method="embedding",
                    remote_model="mistral-embed",
                    label_schema=schema.to_json(),
                    recipe={"file": "models/train_0000000001.zip", "sha256": sha256, "dimensions": 1024},
                )
                .returning(ModelRow.no)
            ).scalar_one()
            connection.execute(insert(ModelTargetRow).values(model_no=key, target=0, name="intent"))

    def unable(self) -> set[str]:
        with reading(self.client.context.engine) as connection:
            return set(connection.scalars(select(UnableWorkerRow.subject)))

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self._folder.glob("process-*.log"))

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(60)
        self.client.close()
        self.redis.stop()


@pytest.fixture
def mistral() -> Iterator[StrictMistral]:
    with StrictMistral() as server:
        yield server


@pytest.fixture
def postgres_fleet(tmp_path: Path, postgres_url: str, mistral: StrictMistral) -> Iterator[Fleet]:
    made = Fleet(tmp_path, postgres_url, mistral)
    yield made
    made.stop()


@pytest.fixture
def sqlite_fleet(tmp_path: Path, sqlite_template: Path, mistral: StrictMistral) -> Iterator[Fleet]:
    shutil.copy(sqlite_template, tmp_path / "jobs.db")
    made = Fleet(tmp_path, f"sqlite:///{tmp_path / 'jobs.db'}", mistral)
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("lack", "order"),
    [("no key", "first"), ("a bad key", "first"), ("a bad key", "last"), ("no data folder", "first")],
)
def test_a_batch_is_completed_by_the_worker_that_can(sqlite_fleet: Fleet, lack: str, order: str) -> None:
    _complete_beside_one_that_lacks(sqlite_fleet, lack, order)


@pytest.mark.postgres
@pytest.mark.parametrize("lack", ["no key", "no data folder"])
def test_so_it_is_on_postgresql(postgres_fleet: Fleet, lack: str) -> None:
    _complete_beside_one_that_lacks(postgres_fleet, lack, "last")


def _complete_beside_one_that_lacks(fleet: Fleet, lack: str, order: str) -> None:
    fleet.keep_trained_model()
    workers = [LACKS[lack], {}]
    for number, environment in enumerate(workers if order == "first" else workers[::-1], 1):
        fleet.start(**environment)
        fleet.until_alive(number)
    fleet.mistral.latency_s = 0.02
    texts = [f"text {'x' * (number % 4)} {number:05d}" for number in range(1500)]
    batch = fleet.classify(texts, TRAINED if lack == "no data folder" else RAW)
    fleet.until(lambda: fleet.client.job(batch).status()["state"] not in ("queued", "running"))
    status = fleet.client.job(batch).status()
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 1500), status
    assert fleet.mistral.billed == Counter(texts)
    with fleet.client.context.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT row, label FROM predictions ORDER BY row").all()
    assert [tuple(row) for row in found] == [(row, label_of(content)) for row, content in enumerate(texts)]


@pytest.mark.parametrize(("lack", "workers"), [("no key", 1), ("a bad key", 2)])
def test_where_no_worker_has_a_key_the_batch_stops_with_exit_code_5(
    sqlite_fleet: Fleet, lack: str, workers: int
) -> None:
    fleet = sqlite_fleet
    for _ in range(workers):
        fleet.start(**LACKS[lack])
    fleet.until_alive(workers)
    batch = fleet.classify([f"text {number}" for number in range(500)], RAW)
    started = time.monotonic()
    watched = fleet.command("watch", batch)
    assert watched.returncode == 5, watched
    assert time.monotonic() - started < DEADLINE_S
    assert "key" in json.loads(watched.stdout)["error"]
    assert fleet.mistral.billed == Counter()


@pytest.mark.postgres
def test_a_whole_pipeline_passes_by_a_worker_without_the_data_folder(postgres_fleet: Fleet, tmp_path: Path) -> None:
    fleet = postgres_fleet
    fleet.start(",".join(QUEUES), **LACKS["no data folder"])
    fleet.until_alive(1)
    fleet.start(",".join(QUEUES))
    fleet.until_alive(2)
    source = tmp_path / "rows.jsonl"
    texts = [f"text {'x' * (number % 4)} {number:04d}" for number in range(400)]
    source.write_text("".join(json.dumps({"text": one, "intent": label_of(one)}) + "\n" for one in texts))
    steps = [
        ("prepare", "small", str(source), "--target", "intent=intent", "--wait"),
        ("train", "small", "--dataset", "small", "--yes", "--wait"),
        ("evaluate", "small", "--dataset", "small", "--wait"),
    ]
    for step in steps:
        ended = fleet.command(*step)
        assert ended.returncode == 0, (ended, fleet._logs())
    assert max(fleet.mistral.billed.values()) <= 2  # once by the training, and those of the test split once more
    assert not (tmp_path / "elsewhere" / "datasets").exists()
