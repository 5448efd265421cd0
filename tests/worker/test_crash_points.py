"""A worker dies at every single commit of a training or an evaluation, just before it and just after: the job still
ends well, and nothing is paid for or made twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from asked import submit_evaluation, submit_training
from sqlalchemy import func, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral
from workshop import SCHEMA, Killed, Workshop, intent_rows, open_workshop

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    EvaluationRow,
    EventRow,
    LockRow,
    ModelRow,
    TrainingRow,
    VectorRow,
)
from labelmill_worker.inference.strategies.logprobs_check import CHECK_TEXT
from labelmill_worker.runtime.recovery.sweep import sweep_if_due
from labelmill_worker.train.heads import fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]

MOST_COMMITS = 80


class Dying:
    """Kills at the `at`th commit of the task's own thread, before it or after it."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._thread = threading.current_thread()
        self._original = engine.dialect.do_commit
        self.at, self.before, self.seen = 0, False, 0
        monkeypatch.setattr(engine.dialect, "do_commit", self._commit)

    def _commit(self, connection: Any) -> None:
        if threading.current_thread() is not self._thread or not self.at:
            self._original(connection)
            return
        self.seen += 1
        if self.seen != self.at:
            self._original(connection)
            return
        if not self.before:
            self._original(connection)
        raise Killed

    @contextmanager
    def at_commit(self, number: int, *, before: bool) -> Iterator[None]:
        self.at, self.before, self.seen = number, before, 0
        try:
            yield
        finally:
            self.at = 0


@pytest.fixture
def shop(sqlite_template: Path, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "l.db").write_bytes(sqlite_template.read_bytes())
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()  # messages of other tests would count as those that wait for a worker
    with open_workshop(f"sqlite:///{tmp_path}/l.db", mistral, redis_url, tmp_path) as made:
        yield made


def everything_is_late(shop: Workshop) -> None:
    """The dead worker's leases run out, its messages are lost, and a sweep comes by."""
    shop.queue.waiting.clear()
    with writing(shop.engine) as connection:
        for table in (TrainingRow, EvaluationRow):
            held = update(table).where(table.lease_token.is_not(None))
            connection.execute(held.values(lease_until=0.0))
            connection.execute(update(table).values(next_look_at=1.0))
        connection.execute(update(TrainingRow).values(due_at=None))
        connection.execute(update(ChunkRow).where(ChunkRow.state == "claimed").values(lease_until=0.0))
        connection.execute(update(ChunkRow).where(ChunkRow.sent_at.is_not(None)).values(sent_at=1.0))
        connection.execute(update(LockRow).values(until=0.0))
    sweep_if_due(shop.engine, shop.sender, shop.resources.settings)


def run_to_the_end(shop: Workshop, job_id: str) -> dict[str, Any]:
    for _ in range(200):
        document = shop.status(job_id)
        if document["state"] not in ("queued", "validating", "running", "submitting"):
            return document
        if shop.queue.waiting:
            with writing(shop.engine) as connection:  # no poll waits for its time here
                connection.execute(update(TrainingRow).values(due_at=None))
            shop.step()
        else:
            everything_is_late(shop)
    raise AssertionError(document)


def die_and_go_on(shop: Workshop, dying: Dying, job_id: str, number: int, *, before: bool) -> tuple[bool, Any]:
    """Returns whether the job had so many commits, and how it ended."""
    died = False
    try:
        with dying.at_commit(number, before=before):
            run_to_the_end(shop, job_id)
    except Killed:
        died = True
        everything_is_late(shop)
    return died, run_to_the_end(shop, job_id)


def count(shop: Workshop, table: Any, *conditions: Any) -> int:
    with reading(shop.engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(table).where(*conditions)) or 0)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    "options",
    [{"method": "embedding"}, {"method": "prompt", "shots": 1, "shot_selection": "nearest"}],
    ids=["embedding", "prompt"],
)
def test_a_training_survives_a_death_at_every_commit(
    shop: Workshop, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], *, before: bool
) -> None:
    monkeypatch.setattr(fit, "STRENGTHS", (2048.0, 1.0, 1.0))  # a choice among seven takes half of the time, no commit
    monkeypatch.setattr(fit, "WEAKER", ())
    dying = Dying(shop.engine, monkeypatch)
    for number in range(1, MOST_COMMITS):
        name = f"m{number}"
        shop.dataset(name, SCHEMA, train=intent_rows(name, 24), validation=intent_rows(f"{name} v", 8))
        mistral.billed.clear()
        vectors = count(shop, VectorRow)
        job = submit_training(shop.engine, shop.sender, name=name, dataset=name, yes=True, **options)
        died, document = die_and_go_on(shop, dying, job, number, before=before)
        assert document["state"] == "succeeded", (number, document)
        assert set(mistral.billed.values()) == {1}, number
        asked = CHECK_TEXT in mistral.billed  # once a chat model: whether it tells log-probabilities
        assert count(shop, VectorRow) - vectors == len(mistral.billed) - asked, number
        assert count(shop, ModelRow, ModelRow.name == name) == 1, number
        assert count(shop, EventRow, EventRow.message == f"for {job}") == 1 + asked, number
        assert count(shop, ChunkRow, ChunkRow.rows != ChunkRow.labelled) == 0, number
        if not died:
            assert number > 8, "a training has more commits than that"
            return
    raise AssertionError("a training has fewer commits than that")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_an_evaluation_survives_a_death_at_every_commit(
    shop: Workshop, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    dataset = shop.dataset(
        "d", SCHEMA, train=intent_rows("t", 8), validation=intent_rows("v", 12), test=intent_rows("e", 24)
    )
    shop.model("m", SCHEMA, dataset_id=dataset)
    dying = Dying(shop.engine, monkeypatch)
    for number in range(1, MOST_COMMITS):
        mistral.billed.clear()
        job = submit_evaluation(shop.engine, shop.sender, model="m", dataset="d", calibrate=True)
        died, document = die_and_go_on(shop, dying, job, number, before=before)
        assert document["state"] == "completed", (number, document)
        assert document["metrics"]["intent"]["accuracy"] == 1.0, number
        assert set(mistral.billed.values()) == {1}, number
        assert len(mistral.billed) == 36, number
        assert count(shop, EventRow, EventRow.message == f"for {job}") == 2, number
        assert count(shop, BatchRow, BatchRow.state != "completed") == 0, number
        if not died:
            assert number > 8, "an evaluation has more commits than that"
            return
    raise AssertionError("an evaluation has fewer commits than that")
