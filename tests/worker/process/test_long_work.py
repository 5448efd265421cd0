"""Long work leaves a slot free, and what finds none is carried out as soon as one is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asked import submit_evaluation, submit_training
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral
from structlog.testing import capture_logs
from workshop import SCHEMA, Workshop, intent_rows

from labelmill.contracts.messages import EVALUATE, PREPARE, TRAIN, JobMessage
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import DatasetRow, EvaluationRow, LockRow, TrainingRow
from labelmill_worker.process import long_work
from labelmill_worker.process.long_work import ForkedSlots, NoFreeSlot, ThreadSlots, limit_long_work, long_slot
from labelmill_worker.runtime.bootsteps.long_work_step import LongWorkStep
from labelmill_worker.runtime.recovery.sweep import sweep_if_due
from labelmill_worker.runtime.tasks import evaluate, prepare, train


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(engine, mistral, redis_url, tmp_path)
    before = long_work._slots
    yield made
    limit_long_work(before)
    made.close()


def full() -> Callable[[], None]:
    """Long work is as much as may be. Returns what ends it."""
    slots = ThreadSlots(1)
    limit_long_work(slots)
    give_back = slots.take()
    assert give_back is not None
    return give_back


def a_dataset(shop: Workshop) -> str:
    with writing(shop.engine) as connection:
        connection.execute(insert(DatasetRow).values(id="prep_0000000001", state="queued", name="n", spec={}))
    return "prep_0000000001"


def test_a_preparation_that_finds_no_slot_is_left_as_it_was_and_sent_by_the_next_sweep(shop: Workshop) -> None:
    full()
    job_id = a_dataset(shop)
    prepare.run(shop.resources, JobMessage(job_id=job_id))
    with reading(shop.engine) as connection:
        row = connection.execute(select(DatasetRow.state, DatasetRow.attempts, DatasetRow.lease_token)).one()
    assert tuple(row) == ("queued", 0, None)
    assert not shop.queue.waiting
    sweep_if_due(shop.engine, shop.sender, shop.resources.settings)
    assert list(shop.queue.waiting) == [(PREPARE, JobMessage(job_id=job_id))]


def test_who_finishes_long_work_sends_what_waits_for_a_slot_once(shop: Workshop) -> None:
    full()()  # a slot that is free again
    job_id = a_dataset(shop)
    with long_slot(shop.engine, shop.sender):
        prepare.run(shop.resources, JobMessage(job_id=job_id))
        assert not shop.queue.waiting
    assert list(shop.queue.waiting) == [(PREPARE, JobMessage(job_id=job_id))]
    with long_slot(shop.engine, shop.sender):
        pass
    assert len(shop.queue.waiting) == 1
    sweep_if_due(shop.engine, shop.sender, shop.resources.settings)
    assert len(shop.queue.waiting) == 1


def test_an_evaluation_that_finds_no_slot_is_no_attempt_and_waits_unclaimed(shop: Workshop) -> None:
    dataset = shop.dataset("d", SCHEMA, test=intent_rows("e", 12))
    shop.model("m", SCHEMA, dataset_id=dataset)
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="d")
    shop.queue.waiting.clear()
    end = full()
    evaluate.run(shop.resources, JobMessage(job_id=job_id))
    with reading(shop.engine) as connection:
        row = connection.execute(select(EvaluationRow.state, EvaluationRow.attempts, EvaluationRow.lease_token)).one()
    assert tuple(row) == ("queued", 0, None)
    sweep_if_due(shop.engine, shop.sender, shop.resources.settings)
    assert list(shop.queue.waiting) == [(EVALUATE, JobMessage(job_id=job_id))]
    end()
    assert shop.run(job_id)["state"] == "completed"


def test_a_training_that_finds_no_slot_goes_on_once_there_is_one(shop: Workshop) -> None:
    shop.dataset("d", SCHEMA, train=intent_rows("t", 24), validation=intent_rows("v", 8))
    job_id = submit_training(shop.engine, shop.sender, name="m", dataset="d", method="embedding", yes=True)
    shop.queue.waiting.clear()
    end = full()
    train.run(shop.resources, JobMessage(job_id=job_id))
    with reading(shop.engine) as connection:
        row = connection.execute(select(TrainingRow.state, TrainingRow.lease_token, TrainingRow.next_look_at)).one()
        assert (row.state, row.lease_token) == ("validating", None)
        assert row.next_look_at < (connection.scalar(select(db_now())) or 0) - 5
    assert not shop.queue.waiting, "a training that looks again by itself would go round in circles"
    sweep_if_due(shop.engine, shop.sender, shop.resources.settings)
    assert list(shop.queue.waiting) == [(TRAIN, JobMessage(job_id=job_id))]
    end()
    while shop.status(job_id)["state"] != "succeeded":
        with writing(shop.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
            connection.execute(update(LockRow).values(lease_until=0.0))
        if not shop.queue.waiting:
            sweep_if_due(shop.engine, shop.sender, shop.resources.settings)
        shop.step()


def test_full_workers_do_not_pass_messages_round_between_two_sweeps(shop: Workshop) -> None:
    full()
    jobs = [{"id": f"prep_{n:010x}", "state": "queued", "name": f"n{n}", "spec": {}} for n in range(300)]
    with writing(shop.engine) as connection:
        connection.execute(insert(DatasetRow), jobs)
    for one in jobs:
        prepare.run(shop.resources, JobMessage(job_id=str(one["id"])))
    sent = 0
    for _ in range(2):
        with writing(shop.engine) as connection:
            connection.execute(update(LockRow).values(lease_until=0.0))
        sweep_if_due(shop.engine, shop.sender, shop.resources.settings)
        sent += len(shop.queue.waiting)
        while shop.queue.waiting:
            prepare.run(shop.resources, shop.queue.waiting.popleft()[1])
    assert 2 <= sent <= 100


def test_slots_are_taken_and_given_back() -> None:
    slots = ThreadSlots(2)
    first, second = slots.take(), slots.take()
    assert first is not None
    assert second is not None
    assert slots.take() is None
    first()
    assert slots.take() is not None


def test_processes_share_slots_and_one_that_is_killed_gives_its_slot_back() -> None:
    slots = ForkedSlots(1)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, b"y" if slots.take() else b"n")
        signal.pause()
    assert os.read(readable, 1) == b"y"
    assert slots.take() is None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    give_back = slots.take()
    assert give_back is not None
    give_back()
    os.close(readable)
    os.close(writable)


@pytest.mark.parametrize(
    ("options", "pool", "count"),
    [
        ({"concurrency": 4}, "thread", 3),
        ({"concurrency": 2}, "prefork", 1),
        ({"concurrency": 1}, "thread", 1),
        ({"concurrency": 8}, "solo", 1),
        ({"concurrency": 8, "autoscale": "8,3"}, "prefork", 2),
        ({"concurrency": 8, "autoscale": (8, 0)}, "prefork", 1),
    ],
)
def test_a_worker_keeps_one_slot_free_of_long_work(
    shop: Workshop, options: dict[str, Any], pool: str, count: int
) -> None:
    with capture_logs() as logs:
        start(["prepare", "classify"], pool, **options)
    taken = 0
    while long_work._slots.take() is not None and not (pool == "prefork" and taken == count):
        taken += 1
    expected = count if pool != "prefork" else taken  # one process can take a slot of its own twice
    assert taken == expected
    warned = any("one slot for several queues" in line["event"] for line in logs)
    assert warned is (options["concurrency"] == 1 or pool == "solo" or options.get("autoscale") == (8, 0))


def test_one_slot_for_one_queue_is_no_reason_to_warn(shop: Workshop) -> None:
    with capture_logs() as logs:
        start(["prepare"], "thread", concurrency=1)
    assert not logs
    with long_slot(shop.engine, shop.sender), pytest.raises(NoFreeSlot), long_slot(shop.engine, shop.sender):
        pass


def start(queues: list[str], pool: str, *, concurrency: int, autoscale: Any = None) -> None:
    module = SimpleNamespace(__module__=f"celery.concurrency.{pool}")
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues))))
    parent = SimpleNamespace(pool_cls=module, app=app, concurrency=concurrency)
    LongWorkStep(parent, autoscale=autoscale)
