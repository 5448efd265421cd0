"""Real workers whose files lie in S3 and that share no folder: one is killed in the middle of an upload."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_workers import ForkedCelery
from s3_server import BUCKET, KEY, SECRET, S3Server
from sqlalchemy import select
from strict_mistral import KEY as MISTRAL_KEY
from strict_mistral import StrictMistral, label_of

from labelmill.client import Client
from labelmill.core.database import reading
from labelmill.core.database.tables import Base
from labelmill.core.settings import Settings
from labelmill.services.results.formats import output_of
from labelmill.services.results.saving import SaveRequest, save_results
from labelmill_ops.embedded_redis import EmbeddedRedis

DEADLINE_S = 90.0
TEXTS = [f"text {number:03d} {'x' * (number % 4)}" for number in range(200)]
ROOT = f"s3://{BUCKET}/ours"


class Hosts:
    """Workers, each on a "host" of its own: another folder to work in, another cache."""

    def __init__(self, folder: Path, database_url: str, mistral: StrictMistral, s3: S3Server) -> None:
        self.folder, self.s3 = folder, s3
        self.redis = EmbeddedRedis(folder / "redis")
        self.redis.start()
        self.workers: list[ForkedCelery] = []
        self._environment = s3.environment() | {
            "LABELMILL_BROKER_URL": self.redis.url,
            "LABELMILL_DATABASE_URL": database_url,
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": ROOT,
            "LABELMILL_LEASE_S": "2",
            "LABELMILL_SWEEP_S": "1",
            "LABELMILL_POLL_S": "0.2",
            "LABELMILL_TEXTS_PER_REQUEST": "20",
            "MISTRAL_API_KEY": MISTRAL_KEY,
        }
        values: dict[str, Any] = {
            "broker_url": self.redis.url,
            "database_url": database_url,
            "data_dir": ROOT,
            "lease_s": 2,
            "sweep_s": 1,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": s3.url,
            "AWS_REGION": "us-east-1",
        }
        self.client = Client(Settings(**values))

    def start(self, pool: str) -> None:
        """Start another worker."""
        host = self._host(len(self.workers))
        host.mkdir()
        options = ["-Q", "prepare,train,classify", "-c", "2", "--pool", pool, "-n", f"{host.name}@%h"]
        command = ["-A", "labelmill_worker.app", "worker", *options]
        environment = os.environ | self._environment | {"LABELMILL_CACHE_DIR": str(host / "cache")}
        self.workers.append(ForkedCelery(command, environment, host / "log", host))

    def kill_the_one_that_prepares(self) -> None:
        """Kill the worker that has begun to write, with its children."""
        (number,) = [number for number in range(len(self.workers)) if any(self._host(number).glob("cache/work-*/"))]
        os.killpg(self.workers[number].pid, 9)
        self.workers[number].wait(10)

    def _host(self, number: int) -> Path:
        return self.folder / f"host{number}"

    def logs(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.folder.glob("host*/log"))

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, 9)
                worker.wait(10)
        self.client.close()
        self.redis.stop()


@pytest.fixture
def hosts(tmp_path: Path, sqlite_template: Path, s3_server: S3Server) -> Iterator[Hosts]:
    shutil.copy(sqlite_template, tmp_path / "jobs.db")
    with StrictMistral() as mistral:
        made = Hosts(tmp_path, f"sqlite:///{tmp_path / 'jobs.db'}", mistral, s3_server)
        yield made
        made.stop()


@pytest.mark.slow
def test_the_main_job_with_files_in_s3_and_a_kill_in_the_middle_of_an_upload(hosts: Hosts, tmp_path: Path) -> None:
    s3 = hosts.s3
    lines = [json.dumps({"text": text, "intent": label_of(text)}) for text in TEXTS]
    s3.put("in/1.jsonl", "\n".join(lines[:100]).encode())
    s3.put("in/2.jsonl", "\n".join(lines[100:]).encode())
    s3.holds = lambda line: "/ours/datasets/" in line and "partNumber" in line
    hosts.start("threads")
    hosts.start("prefork")
    dataset = hosts.client.prepare("small", f"s3://{BUCKET}/in/*.jsonl", targets=["intent=intent"], split="60/20/20")
    _until(s3.is_holding.is_set, hosts)
    assert len(s3.keys("ours/sources/")) == 2
    s3.holds = lambda _: False
    hosts.kill_the_one_that_prepares()
    s3.release.set()
    hosts.start("threads")

    document = dataset.wait(DEADLINE_S)
    assert document["state"] == "ready", (document, hosts.logs())
    assert document["splits"] == {"train": 120, "validation": 40, "test": 40}
    assert document["files"]["train"].startswith(f"{ROOT}/datasets/{dataset.id}/")
    assert len(s3.keys("ours/datasets/")) == 3  # those of the attempt that was recorded
    _until(lambda: not s3.keys("ours/sources/"), hosts)  # they are deleted once the dataset is ready
    assert s3.uploads() == []

    training = hosts.client.train("m", "small", yes=True).wait(DEADLINE_S)
    assert training["state"] == "succeeded", (training, hosts.logs())
    evaluation = hosts.client.evaluate("m", "small").wait(DEADLINE_S)
    assert evaluation["state"] == "completed", (evaluation, hosts.logs())
    assert evaluation["metrics"]["intent"]["accuracy"] == 1.0
    batch = hosts.client.classify(f"s3://{BUCKET}/in/*.jsonl", "m")
    done = batch.wait(DEADLINE_S)
    assert (done["state"], done["rows"]["labelled"]) == ("completed", 200), (done, hosts.logs())

    output = output_of(f"s3://{BUCKET}/out/results.jsonl")
    save_results(hosts.client.context, SaveRequest(batch.id, output))
    rows = [json.loads(line) for line in s3.get("out/results.jsonl").splitlines()]
    assert [row["predictions"]["intent"]["label"] for row in rows] == [label_of(text) for text in TEXTS]
    assert not (tmp_path / ".labelmill").exists()
    _assert_hidden(hosts)


def _assert_hidden(hosts: Hosts) -> None:
    """No key is in the database, and none in a log."""
    with reading(hosts.client.context.engine) as connection:
        stored = "".join(
            str(tuple(row)) for table in Base.metadata.sorted_tables for row in connection.execute(select(table))
        )
    for words in (stored, hosts.logs()):
        assert KEY not in words
        assert SECRET not in words


def _until(condition: Callable[[], bool], hosts: Hosts) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, hosts.logs()
        time.sleep(0.02)
