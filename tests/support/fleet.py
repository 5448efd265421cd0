"""Real worker processes, a Redis of their own and a strict stand-in for Mistral."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from forked_workers import ForkedCelery
from sqlalchemy import text
from strict_mistral import KEY, StrictMistral, label_of

from labelmill import Batch, Client
from labelmill.core.database import reading
from labelmill.core.settings import Settings
from labelmill_ops.embedded_redis import EmbeddedRedis

ROWS, PER_REQUEST, MAX_IN_FLIGHT = 5000, 20, 4
DEADLINE_S = 90.0  # three at a time start their processes on two cores


class Fleet:
    """Worker processes, their Redis and their Mistral."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        mistral: StrictMistral,
        prices: dict[str, tuple[float, float]] | None = None,
    ) -> None:
        self._folder = folder
        self.mistral = mistral
        self.redis = EmbeddedRedis(folder / "redis")
        self.redis.start()
        self.environment = {
            "LABELMILL_BROKER_URL": self.redis.url,
            "LABELMILL_DATABASE_URL": database_url,
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": str(folder),
            # a process that a busy machine keeps waiting for as long loses its chunk, and rows are paid for twice;
            # tests that wait until the lease of a killed worker has run out set a shorter one
            "LABELMILL_LEASE_S": "15",
            "LABELMILL_SWEEP_S": "1",
            "LABELMILL_TEXTS_PER_REQUEST": str(PER_REQUEST),
            "LABELMILL_MAX_IN_FLIGHT": str(MAX_IN_FLIGHT),
            "LABELMILL_PRICES": orjson.dumps(prices or {}).decode(),
            "MISTRAL_API_KEY": KEY,
        }
        self.processes: list[ForkedCelery] = []
        self.client = Client(
            Settings(
                broker_url=self.redis.url,
                database_url=database_url,
                data_dir=str(folder),
                lease_s=15,
                sweep_s=1,
                prices=prices or {},
            )
        )

    def start_worker(
        self,
        pool: str = "threads",
        *,
        slots: int = 4,
        queues: str = "prepare,train,classify",
        app: str = "labelmill_worker.app",
    ) -> ForkedCelery:
        number = len(self.processes)
        return self.start(app, "worker", "-Q", queues, "-c", str(slots), "--pool", pool, "-n", f"w{number}@%h")

    def start(self, app: str, *arguments: str) -> ForkedCelery:
        log = self._folder / f"process-{len(self.processes)}.log"
        process = ForkedCelery(["-A", app, *arguments], os.environ | self.environment, log, self._folder)
        self.processes.append(process)
        return process

    def submit(self, max_cost: float | None = None) -> Batch:
        source = self._folder / "texts.jsonl"
        source.write_bytes(b"\n".join(orjson.dumps({"text": content}) for content in texts()))
        return self.client.classify(str(source), model="ft:classifier:stand-in", max_cost=max_cost)

    def billed(self) -> int:
        return sum(self.mistral.billed.values())

    def check(self, batch: Batch) -> None:
        """Wait for the end, then see every row answered once."""
        wait_for(lambda: batch.status()["state"] == "completed", lambda: f"{batch.status()} {self.logs()}")
        rows = batch.status()["rows"]
        assert (rows["submitted"], rows["labelled"]) == (ROWS, ROWS)
        with reading(self.client.context.engine) as connection:
            stored = connection.execute(
                text("SELECT row, label FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch.id}
            ).all()
        assert [tuple(row) for row in stored] == [(row, label_of(content)) for row, content in enumerate(texts())]

    def logs(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in self._folder.glob("process-*.log"))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(60)
        self.client.close()
        self.redis.stop()


def texts() -> list[str]:
    return [f"text {'x' * (number % 4)} {number:05d}" for number in range(ROWS)]


def wait_for(condition: Callable[[], object], explain: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"the condition did not come true in time: {explain()}"
        time.sleep(0.02)
