"""Preparations that do not end fill all that long work may have: recovery and batches go on beside them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from asked import submit_prepare
from fleet import ROWS, Fleet, wait_for
from sqlalchemy import text
from strict_mistral import StrictMistral

from labelmill.contracts.messages import SWEEP
from labelmill.core.database import reading


class HeldFleet(Fleet):
    """Its preparations go on as long as `hold` exists."""

    def __init__(self, folder: Path, database_url: str, mistral: StrictMistral) -> None:
        super().__init__(folder, database_url, mistral)
        self.hold = folder / "hold"
        self.hold.touch()
        self.environment["TEST_HOLD"] = str(self.hold)

    def prepare(self, count: int) -> None:
        source = self._folder / "rows.jsonl"
        source.write_text("".join(f'{{"text": "text {n}", "intent": "{n % 2}"}}\n' for n in range(40)))
        for number in range(count):
            submit_prepare(
                self.client.context.engine,
                self.client.context.sender,
                self.client.settings,
                name=f"d{number}",
                source=str(source),
                targets=["intent=intent"],
                text="text",
            )

    def datasets(self, state: str) -> int:
        with reading(self.client.context.engine) as connection:
            query = text("SELECT count(*) FROM datasets WHERE state = :state")
            return int(connection.execute(query, {"state": state}).scalar_one())

    def claims(self) -> int:
        with reading(self.client.context.engine) as connection:
            return int(connection.execute(text("SELECT count(*) FROM chunks WHERE state = 'claimed'")).scalar_one())


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[HeldFleet]:
    with StrictMistral() as mistral:
        mistral.latency_s = 0.05
        made = HeldFleet(tmp_path, database_url, mistral)
        try:
            yield made
        finally:
            made.stop()
            made.client.close()


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_batch_goes_on_in_the_slot_that_long_preparations_leave(fleet: HeldFleet, pool: str) -> None:
    fleet.start_worker(pool, slots=3, app="held_preparations")
    fleet.prepare(5)
    wait_for(lambda: fleet.datasets("preparing") == 2, fleet.logs)
    fleet.check(fleet.submit())
    assert (fleet.datasets("preparing"), fleet.datasets("queued")) == (2, 3)
    fleet.hold.unlink()
    wait_for(lambda: fleet.datasets("ready") == 5, fleet.logs)


def test_after_a_lost_connection_the_free_slot_still_gets_messages(fleet: HeldFleet, tmp_path: Path) -> None:
    fleet.start_worker(slots=3, app="held_preparations")
    fleet.mistral.latency_s = 1.0
    few = tmp_path / "few.jsonl"
    few.write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(10)))
    small = fleet.client.classify(str(few), model="ft:classifier:stand-in")
    wait_for(lambda: fleet.claims() == 1, fleet.logs)  # one task is under way when the connection is lost
    with redis.Redis.from_url(fleet.redis.url) as client:
        lost = {connection["id"] for connection in client.client_list()}
        client.flushall()  # or the message of the task comes back, and counts when it ends
        client.client_kill_filter(_type="normal", skipme=True)
        wait_for(
            lambda: any(one["id"] not in lost and one["cmd"] == "brpop" for one in client.client_list()), fleet.logs
        )
    wait_for(lambda: small.status()["state"] == "completed", fleet.logs)
    fleet.mistral.latency_s = 0.02
    fleet.prepare(2)
    wait_for(lambda: fleet.datasets("preparing") == 2, fleet.logs)
    fleet.check(fleet.submit())
    assert fleet.datasets("preparing") == 2


def test_beside_full_slots_a_dead_workers_chunks_come_back_and_lost_messages_are_sent(fleet: HeldFleet) -> None:
    fleet.environment["LABELMILL_LEASE_S"] = "3"
    victim = fleet.start_worker(slots=2, app="held_preparations")
    fleet.start_worker(slots=2, app="held_preparations")
    fleet.prepare(6)
    wait_for(lambda: fleet.datasets("preparing") == 2, fleet.logs)
    fleet.mistral.latency_s = 0.4
    batch = fleet.submit()
    wait_for(lambda: fleet.claims() == 2, fleet.logs)
    victim.send_signal(signal.SIGKILL)
    victim.wait(60)
    with redis.Redis.from_url(fleet.redis.url) as client:
        client.flushall()
    returned = text("SELECT count(*) FROM events WHERE message LIKE 'its worker''s lease ran out%'")

    def is_returned() -> bool:
        with reading(fleet.client.context.engine) as connection:
            return bool(connection.execute(returned).scalar_one())

    wait_for(is_returned, fleet.logs)
    fleet.mistral.latency_s = 0.02
    fleet.check(batch)
    assert fleet.datasets("ready") == 0


def test_a_worker_of_one_queue_alone_recovers_work_of_every_kind(fleet: HeldFleet) -> None:
    fleet.hold.unlink()
    fleet.prepare(1)
    batch = fleet.submit()
    with redis.Redis.from_url(fleet.redis.url) as client:
        client.flushall()
        fleet.start_worker("solo", slots=1, queues="train")
        wait_for(lambda: client.llen("prepare\x06\x163") and client.llen("classify\x06\x163"), fleet.logs)
    assert batch.status()["rows"]["pending"] == ROWS


def test_beat_and_the_sweeps_of_older_ones_are_accepted_and_do_no_harm(fleet: HeldFleet, tmp_path: Path) -> None:
    worker = fleet.start_worker()
    beat = fleet.start("labelmill_worker.app", "beat", "-s", str(tmp_path / "beat"), "--pidfile", "")
    wait_for(lambda: " ready." in fleet.logs(), fleet.logs)
    for _ in range(50):
        fleet.client.context.sender._app.send_task(SWEEP, queue="train")
    fleet.check(fleet.submit())
    with redis.Redis.from_url(fleet.redis.url) as client:
        wait_for(lambda: not client.llen("train\x06\x163") and not client.llen("train"), fleet.logs)
    assert (worker.poll(), beat.poll()) == (None, None)
    with reading(fleet.client.context.engine) as connection:
        assert not connection.execute(text("SELECT count(*) FROM dead_letters")).scalar_one()
    beat.terminate()
    assert beat.wait(60) == 0
    assert not (tmp_path / "beat").exists()


def test_a_worker_that_is_told_to_end_gives_its_sweeps_to_another_at_once(fleet: HeldFleet) -> None:
    fleet.environment["LABELMILL_SWEEP_S"] = "60"
    worker = fleet.start_worker()
    holds = text("SELECT count(*) FROM locks WHERE name = 'sweep' AND token IS NOT NULL")

    def is_held() -> bool:
        with reading(fleet.client.context.engine) as connection:
            return bool(connection.execute(holds).scalar_one())

    wait_for(is_held, fleet.logs)
    wait_for(lambda: " ready." in fleet.logs(), fleet.logs)
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: not is_held(), fleet.logs)
    assert worker.wait(60) == 0
