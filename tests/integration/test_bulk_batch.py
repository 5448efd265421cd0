"""Batches over real worker processes, a real Redis and a real database, while things are killed and lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from sqlalchemy import text
from strict_mistral import KEY, StrictMistral, label_of

from labelmill.client import Batch, Client
from labelmill.contracts.database import reading
from labelmill.contracts.settings import Settings
from labelmill_ops.embedded_redis import EmbeddedRedis

ROWS, PER_REQUEST, MAX_IN_FLIGHT = 5000, 20, 4
DEADLINE_S = 45.0


class Fleet:
    """Worker and beat processes, their Redis and their Mistral."""

    def __init__(self, folder: Path, database_url: str, mistral: StrictMistral) -> None:
        self._folder = folder
        self.mistral = mistral
        self.redis = EmbeddedRedis(folder / "redis")
        self.redis.start()
        self.environment = {
            "LABELMILL_BROKER_URL": self.redis.url,
            "LABELMILL_DATABASE_URL": database_url,
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": str(folder),
            "LABELMILL_LEASE_S": "2",
            "LABELMILL_SWEEP_S": "1",
            "LABELMILL_TEXTS_PER_REQUEST": str(PER_REQUEST),
            "LABELMILL_MAX_IN_FLIGHT": str(MAX_IN_FLIGHT),
            "MISTRAL_API_KEY": KEY,
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.client = Client(
            Settings(broker_url=self.redis.url, database_url=database_url, data_dir=str(folder), lease_s=2, sweep_s=1)
        )

    def start_worker(self, pool: str = "threads") -> subprocess.Popen[bytes]:
        number = len(self.processes)
        return self._start(
            "worker", "-Q", "prepare,train,classify", "-c", "4", "--pool", pool, "-n", f"w{number}@%h"
        )  # fmt: skip

    def start_beat(self) -> None:
        self._start("beat", "-s", str(self._folder / "beat"))

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"process-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "labelmill_worker.app", *arguments],
                env=os.environ | self.environment, stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def submit(self) -> Batch:
        source = self._folder / "texts.jsonl"
        source.write_bytes(b"\n".join(orjson.dumps({"text": content}) for content in texts()))
        return self.client.classify(str(source), model="ft:classifier:stand-in")

    def billed(self) -> int:
        return sum(self.mistral.billed.values())

    def check(self, batch: Batch) -> None:
        """Wait for the end, then see every row answered once."""
        wait_for(lambda: batch.status()["state"] == "completed", lambda: f"{batch.status()} {self.logs()}")
        rows = batch.status()["rows"]
        assert (rows["submitted"], rows["labelled"]) == (ROWS, ROWS)
        with reading(self.client.engine) as connection:
            found = connection.execute(
                text("SELECT row, label FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch.id}
            ).all()
        assert [tuple(row) for row in found] == [(row, label_of(content)) for row, content in enumerate(texts())]

    def logs(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in self._folder.glob("process-*.log"))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.redis.stop()


def texts() -> list[str]:
    return [f"text {'x' * (number % 4)} {number:05d}" for number in range(ROWS)]


def wait_for(condition: Callable[[], object], explain: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"the condition did not come true in time: {explain()}"
        time.sleep(0.02)


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    with StrictMistral() as mistral:
        mistral.latency_s = 0.05
        made = Fleet(tmp_path, database_url, mistral)
        try:
            yield made
        finally:
            made.stop()
            made.client.engine.dispose()


def test_a_killed_worker_costs_no_more_than_what_it_had_in_flight(fleet: Fleet) -> None:
    victim = fleet.start_worker()
    fleet.start_worker()
    fleet.start_beat()
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > ROWS // 5, fleet.logs)
    victim.send_signal(signal.SIGKILL)
    fleet.check(batch)
    assert fleet.billed() - ROWS <= MAX_IN_FLIGHT * PER_REQUEST
    assert fleet.mistral.most_concurrent <= 2 * MAX_IN_FLIGHT


def test_a_worker_told_to_end_hands_back_at_once_and_nothing_is_paid_twice(fleet: Fleet) -> None:
    victim = fleet.start_worker()
    fleet.start_worker()
    # no beat: what is handed back is taken over without a sweep
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > ROWS // 5, fleet.logs)
    victim.send_signal(signal.SIGTERM)
    victim.wait(10)
    fleet.check(batch)
    assert fleet.billed() == ROWS


@pytest.mark.parametrize("told", [(signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT)], ids=["SIGQUIT", "SIGINT twice"])
def test_a_worker_told_to_end_at_once_waits_for_no_request_and_hands_back(
    fleet: Fleet, tmp_path: Path, told: tuple[signal.Signals, ...]
) -> None:
    victim = fleet.start_worker()
    fleet.mistral.latency_s = 20  # longer than whoever is told to end in peace waits
    batch = fleet.submit()
    wait_for(lambda: fleet.mistral.concurrent == MAX_IN_FLIGHT, fleet.logs)
    for number in told:
        victim.send_signal(number)
        wait_for(lambda: "Hitting Ctrl+C again" in fleet.logs(), fleet.logs)  # the second one is another signal then
    assert victim.wait(10) in (0, 1)  # which of the two, Celery leaves to the moment
    assert "Traceback" not in (tmp_path / "process-0.log").read_text()
    with reading(fleet.client.engine) as connection:
        assert not connection.execute(text("SELECT count(*) FROM chunks WHERE state = 'claimed'")).scalar_one()
    fleet.mistral.latency_s = 0.05
    fleet.start_worker()  # no beat: what was handed back has a message
    fleet.check(batch)


def test_processes_that_carry_out_tasks_are_killed_when_their_worker_is_told_to_end_at_once(
    fleet: Fleet, tmp_path: Path
) -> None:
    victim = fleet.start_worker("prefork")
    fleet.mistral.latency_s = 20
    batch = fleet.submit()
    wait_for(lambda: fleet.mistral.concurrent >= MAX_IN_FLIGHT, fleet.logs)
    victim.send_signal(signal.SIGQUIT)
    assert victim.wait(10) == 0
    assert "Traceback" not in (tmp_path / "process-0.log").read_text()
    fleet.mistral.latency_s = 0.05
    fleet.start_worker()
    fleet.start_beat()  # killed as they are, they hand nothing back
    fleet.check(batch)


def test_losing_all_of_redis_delays_a_batch_and_loses_nothing(fleet: Fleet) -> None:
    import redis  # noqa: PLC0415 - this test alone speaks to it

    fleet.start_worker()
    fleet.start_beat()
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > ROWS // 5, fleet.logs)
    with redis.Redis.from_url(fleet.redis.url) as client:
        client.flushall()
    fleet.check(batch)
    assert fleet.billed() == ROWS


def test_a_batch_submitted_while_redis_is_down_starts_when_it_is_back(fleet: Fleet) -> None:
    fleet.start_worker()
    fleet.start_beat()
    fleet.redis.kill()
    batch = fleet.submit()
    assert batch.status()["state"] == "queued"
    fleet.redis.start()
    fleet.check(batch)
    assert fleet.billed() == ROWS
