"""The main job by real worker processes behind PgBouncer in transaction mode, which is killed again and again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from forked_workers import ForkedCelery
from pgbouncer import PgBouncer
from sqlalchemy import make_url, text
from strict_mistral import KEY, StrictMistral, label_of

from labelmill.client import Client
from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import reading
from labelmill.core.settings import Settings

pytestmark = pytest.mark.postgres

T = TypeVar("T")
ROWS = 2000
ENDED = ("ready", "succeeded", "completed", "failed")
DEADLINE_S = 90.0


@pytest.fixture
def client(
    tmp_path: Path, postgres_url: str, pgbouncer: PgBouncer, redis_url: str
) -> Iterator[tuple[Client, StrictMistral]]:
    """A client, and worker processes that use the same pooler."""
    url = pgbouncer.url(str(make_url(postgres_url).database))
    with StrictMistral() as mistral:
        mistral.latency_s = 0.02
        environment = os.environ | {
            "LABELMILL_BROKER_URL": redis_url,
            "LABELMILL_DATABASE_URL": url,
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": str(tmp_path),
            "LABELMILL_LEASE_S": "5",
            "LABELMILL_SWEEP_S": "1",
            "LABELMILL_TEXTS_PER_REQUEST": "20",
            "LABELMILL_MAX_IN_FLIGHT": "4",
            "MISTRAL_API_KEY": KEY,
        }
        worker = ["worker", "-Q", "prepare,train,classify", "-c", "4"]
        processes = [
            ForkedCelery(["-A", "labelmill_worker.app", *command], environment, tmp_path / "log", tmp_path)
            for command in ([*worker, "-n", "p0@%h"], [*worker, "-n", "p1@%h"], ["beat"])
        ]
        settings = Settings(broker_url=redis_url, database_url=url, data_dir=str(tmp_path), lease_s=5, sweep_s=1)
        with Client(settings) as made:
            yield made, mistral
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _killed_again_and_again(pgbouncer: PgBouncer) -> Iterator[None]:
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(1.0):
            pgbouncer.kill()
            pgbouncer.start()

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    ended.set()
    thread.join()


def _in_the_end(ask: Callable[[], T]) -> T:
    """What a producer does: try again while the database cannot be reached."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            return ask()
        except DatabaseUnavailable:
            assert time.monotonic() < end
            time.sleep(0.05)


def _wait(client: Client, job_id: str) -> dict[str, Any]:
    end = time.monotonic() + DEADLINE_S
    while (document := _in_the_end(lambda: client.status(job_id)))["state"] not in (
        "ready",
        "succeeded",
        "completed",
        "failed",
    ):
        assert time.monotonic() < end, document
        time.sleep(0.1)
    assert document["state"] != "failed", document
    return document


def test_the_main_job_ends_well_while_the_pooler_is_killed(
    client: tuple[Client, StrictMistral], pgbouncer: PgBouncer, tmp_path: Path
) -> None:
    mill, mistral = client
    texts = [f"text {'x' * (number % 4)} {number:05d}" for number in range(ROWS)]
    source = tmp_path / "rows.jsonl"
    rows = [{"text": content, "intent": label_of(content)} for content in texts]
    source.write_bytes(b"\n".join(map(orjson.dumps, rows[:200])))
    to_classify = tmp_path / "texts.jsonl"
    to_classify.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    with _killed_again_and_again(pgbouncer):
        dataset = _in_the_end(lambda: mill.prepare("d", str(source), targets=["intent=intent"]).id)
        assert sum(_wait(mill, dataset)["splits"].values()) == 200
        training = _in_the_end(lambda: mill.train("m", "d", yes=True).id)
        assert _wait(mill, training)["state"] == "succeeded"
        evaluation = _in_the_end(lambda: mill.evaluate("m", "d").id)
        assert _wait(mill, evaluation)["metrics"]["intent"]["accuracy"] > 0.5
        key = {"idempotency_key": "all of them"}
        batch = _in_the_end(lambda: mill.classify(str(to_classify), "ft:classifier:x", **key).id)
        assert _wait(mill, batch)["rows"]["labelled"] == ROWS
    with reading(mill.context.engine) as connection:
        found = connection.execute(
            text("SELECT row, label FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch}
        ).all()
    assert [tuple(row) for row in found] == [(row, label_of(content)) for row, content in enumerate(texts)]
    # chunk by chunk it waits for the database and goes on: what is paid for again was in flight
    assert sum(mistral.billed[content] - 1 for content in texts[200:]) <= 20 * 4 * 2
