"""A worker dies wherever a training or an evaluation commits, just before it and just after: the job still ends well,
and nothing is paid for or made twice."""

from __future__ import annotations

import sys
import threading
from collections import Counter
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

MOST_LIVES = 80
GAP = 4  #: Commits from a death to the next one, so that there is some progress between them.
Place = tuple[tuple[str, int], ...]  #: File and line of every call that a commit is made under.


class Dying:
    """Kills at commits of the task's own thread, before them or after them: at each place in the program that commits,
    the first and the second time that a job comes by."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
        self._thread = threading.current_thread()
        self._original = engine.dialect.do_commit
        self._before = before
        self._died_at: set[tuple[Place, int]] = set()
        self._passed: Counter[Place] = Counter()
        self._since = 0
        self._is_on = False
        monkeypatch.setattr(engine.dialect, "do_commit", self._commit)

    def _commit(self, connection: Any) -> None:
        if threading.current_thread() is not self._thread or not self._is_on:
            self._original(connection)
            return
        place = _place()
        self._passed[place] += 1
        self._since += 1
        point = (place, self._passed[place])
        if point[1] > 2 or self._since < GAP or point in self._died_at:
            self._original(connection)
            return
        self._died_at.add(point)
        if not self._before:
            self._original(connection)
        raise Killed

    @property
    def deaths(self) -> int:
        return len(self._died_at)

    def begin(self) -> None:
        """A new job begins: the first commit may be a death."""
        self._passed.clear()
        self._since = GAP

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._is_on = True
        try:
            yield
        finally:
            self._is_on, self._since = False, 0


def _place() -> Place:
    frame, calls = sys._getframe(2), []
    while frame.f_code is not run_to_the_end.__code__:
        calls.append((frame.f_code.co_filename, frame.f_lineno))
        assert frame.f_back is not None
        frame = frame.f_back
    return tuple(calls)


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
        connection.execute(update(LockRow).values(lease_until=0.0))
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


def die_and_go_on(shop: Workshop, dying: Dying, job_id: str) -> dict[str, Any]:
    """How the job ended, after all deaths that were left to die in it."""
    dying.begin()
    while True:
        try:
            with dying.watching():
                return run_to_the_end(shop, job_id)
        except Killed:
            everything_is_late(shop)


def count(shop: Workshop, table: Any, *conditions: Any) -> int:
    with reading(shop.engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(table).where(*conditions)) or 0)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    "options",
    [{"method": "embedding"}, {"method": "prompt", "shots": 1, "shot_selection": "nearest"}],
    ids=["embedding", "prompt"],
)
def test_a_training_survives_a_death_wherever_it_commits(
    shop: Workshop, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], *, before: bool
) -> None:
    monkeypatch.setattr(fit, "STRENGTHS", (2048.0, 1.0, 1.0))  # a choice among seven takes half of the time, no commit
    monkeypatch.setattr(fit, "WEAKER", ())
    dying = Dying(shop.engine, monkeypatch, before=before)
    for number in range(1, MOST_LIVES):
        deaths = dying.deaths
        name = f"m{number}"
        shop.dataset(name, SCHEMA, train=intent_rows(name, 24), validation=intent_rows(f"{name} v", 8))
        mistral.billed.clear()
        vectors = count(shop, VectorRow)
        job = submit_training(shop.engine, shop.sender, name=name, dataset=name, yes=True, **options)
        document = die_and_go_on(shop, dying, job)
        assert document["state"] == "succeeded", (number, document)
        assert set(mistral.billed.values()) == {1}, number
        asked = CHECK_TEXT in mistral.billed  # once a chat model: whether it tells log-probabilities
        assert count(shop, VectorRow) - vectors == len(mistral.billed) - asked, number
        assert count(shop, ModelRow, ModelRow.name == name) == 1, number
        assert count(shop, EventRow, EventRow.message == f"for {job}") == 1 + asked, number
        assert count(shop, ChunkRow, ChunkRow.rows != ChunkRow.labelled) == 0, number
        if dying.deaths == deaths:  # whatever it comes by has been survived
            assert deaths > 30, "a training commits at more places than that"
            return
    raise AssertionError("a training commits at fewer places than that")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_an_evaluation_survives_a_death_wherever_it_commits(
    shop: Workshop, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    dataset = shop.dataset(
        "d", SCHEMA, train=intent_rows("t", 8), validation=intent_rows("v", 12), test=intent_rows("e", 24)
    )
    shop.model("m", SCHEMA, dataset_id=dataset)
    dying = Dying(shop.engine, monkeypatch, before=before)
    for number in range(1, MOST_LIVES):
        deaths = dying.deaths
        mistral.billed.clear()
        job = submit_evaluation(shop.engine, shop.sender, model="m", dataset="d", calibrate=True)
        document = die_and_go_on(shop, dying, job)
        assert document["state"] == "completed", (number, document)
        assert document["metrics"]["intent"]["accuracy"] == 1.0, number
        assert set(mistral.billed.values()) == {1}, number
        assert len(mistral.billed) == 36, number
        assert count(shop, EventRow, EventRow.message == f"for {job}") == 2, number
        assert count(shop, BatchRow, BatchRow.state != "completed") == 0, number
        if dying.deaths == deaths:
            assert deaths > 20, "an evaluation commits at more places than that"
            return
    raise AssertionError("an evaluation commits at fewer places than that")
