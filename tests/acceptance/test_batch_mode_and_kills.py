"""A batch in mode `batch`, by the real command line and real worker processes, which are killed in every step of its
job at Mistral."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from emulator_thread import EmulatorThread
from fleet import wait_for
from forked_workers import ForkedCelery
from sqlalchemy import text

from labelmill.core.database import connect, reading, upgrade
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import JobOrder

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

ROWS, TEXTS_PER_REQUEST = 20_000, 10
KEY = "a-key"
WORDS = {"music": "play a song", "weather": "will it rain"}
HUNG = ("upload", "create-batch", "download", "delete-file")  #: Their first answers never come: time to kill a worker.


class OneAfterTheOther:
    """One worker process after the other, with logs of their own in a folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, os.environ | environment
        self._processes: list[ForkedCelery] = []

    def start(self) -> None:
        name = f"w{len(self._processes)}"
        options = ["-Q", "prepare,train,classify", "-c", "2", "--pool", "threads", "-n", f"{name}@%h"]
        command = ["-A", "labelmill_worker.app", "worker", *options]
        log = self._folder / f"worker-{name}.log"
        self._processes.append(ForkedCelery(command, self._environment, log, self._folder))

    def kill(self) -> None:
        if self._processes:
            self._processes[-1].kill()
            self._processes[-1].wait(60)

    def logs(self) -> str:
        """The ends of their logs."""
        return "\n".join(path.read_text()[-1500:] for path in sorted(self._folder.glob("worker-*.log")))


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    config = EmulatorConfig(port=0, validate_s=0, train_s=0, batch_queue_s=1.0, batch_run_s=1.0, inference_threads=1)
    with EmulatorThread(config) as running:
        yield running


@pytest.fixture
def model(emulator: EmulatorThread, tmp_path: Path) -> str:
    """A classifier that was trained before."""
    path = tmp_path / "train.jsonl"
    rows = [{"text": f"{words} {n}", "labels": {"intent": label}} for label, words in WORDS.items() for n in range(9)]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    plane = SdkControlPlane(SdkRequests(KEY, emulator.url, timeout_s=10))
    file_id = plane.upload_file(path, "train.jsonl", 1)
    job = plane.create_job(JobOrder("ministral-3b-latest", (file_id,)))
    wait_for(lambda: plane.get_job(job.id).status == "VALIDATED")
    plane.start_job(job.id)
    wait_for(lambda: plane.get_job(job.id).status == "SUCCESS")
    trained = str(plane.get_job(job.id).fine_tuned_model)
    plane.delete_file(file_id)
    plane.close()
    httpx2.post(f"{emulator.url}/_control/reset-stats").raise_for_status()
    faults = [f"lost@{call}x1:1:hang" for call in HUNG]
    httpx2.put(f"{emulator.url}/_control/faults", json={"faults": faults}).raise_for_status()
    return trained


def test_a_kill_in_every_step_of_a_batch_job_costs_no_row_no_second_job_and_no_second_payment(
    emulator: EmulatorThread, model: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    engine = connect(url)
    upgrade(engine)
    redis = EmbeddedRedis(tmp_path / "redis")
    redis.start()
    environment = {
        "LABELMILL_BROKER_URL": redis.url,
        "LABELMILL_DATABASE_URL": url,
        "LABELMILL_MISTRAL_URL": emulator.url,
        "LABELMILL_DATA_DIR": str(tmp_path),
        "LABELMILL_LEASE_S": "2",
        "LABELMILL_SWEEP_S": "0.5",
        "LABELMILL_POLL_S": "1",  # so long it stays in the step that waits, at least: a busy machine sees it
        "LABELMILL_TEXTS_PER_REQUEST": str(TEXTS_PER_REQUEST),
        "MISTRAL_API_KEY": KEY,
    }
    labels = list(WORDS)
    source = tmp_path / "texts.jsonl"
    source.write_bytes(
        b"".join(orjson.dumps({"text": f"{WORDS[labels[row % 2]]} number {row}"}) + b"\n" for row in range(ROWS))
    )

    def labelmill(*arguments: str) -> str:
        command = [sys.executable, "-m", "labelmill", *arguments, "--json"]
        return subprocess.run(
            command, env=os.environ | environment, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    def is_in(step: str, hung: int = 0) -> Callable[[], bool]:
        """Whether the job is in a step, and so many of the calls in `HUNG` have been made."""

        def check() -> bool:
            with reading(engine) as connection:
                steps = connection.scalars(text("SELECT step FROM remote_batches")).all()
            return step in steps and emulator.stats()["faults"].get("lost", 0) >= hung

        return check

    def files() -> list[Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        found: list[Any] = httpx2.get(f"{emulator.url}/v1/files", headers=headers).json()["data"]
        return found

    workers = OneAfterTheOther(tmp_path, environment)
    try:
        batch = json.loads(labelmill("classify", str(source), "--model", model, "--mode", "batch"))["id"]
        for phase in (
            is_in("uploading", 1),
            is_in("creating", 2),
            is_in("waiting"),
            is_in("reading", 3),
            is_in("cleaning", 4),
        ):
            workers.start()
            wait_for(phase, workers.logs)
            workers.kill()
        workers.start()
        wait_for(lambda: files() == [], workers.logs)
        status = json.loads(labelmill("watch", batch))
        assert (status["state"], status["rows"]["labelled"], status["mode"]) == ("completed", ROWS, "batch")
        assert [job["status"] for job in status["remote_jobs"]] == ["SUCCESS"]
        with reading(engine) as connection:
            found = connection.execute(
                text("SELECT row, label FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch}
            ).all()
        assert [tuple(row) for row in found] == [(row, labels[row % 2]) for row in range(ROWS)]
        stats = emulator.stats()
        assert (stats["texts"], stats["billed_twice"], stats["batches_created"]) == (ROWS, 0, 1)
        assert stats["by_mode"]["realtime"]["requests"] == 0
        assert stats["files"] == 1
    finally:
        workers.kill()
        redis.stop()
        engine.dispose()
