"""Batches over real worker processes, a real Redis and a real database, while things are killed and lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import MAX_IN_FLIGHT, PER_REQUEST, ROWS, Fleet, wait_for
from sqlalchemy import text
from strict_mistral import StrictMistral

from labelmill import Batch
from labelmill.core.database import reading


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    with StrictMistral() as mistral:
        mistral.latency_s = 0.05
        made = Fleet(tmp_path, database_url, mistral)
        try:
            yield made
        finally:
            made.stop()
            made.client.close()


def submit_to_a_mistral_that_hangs(fleet: Fleet) -> Batch:
    """A batch, whose requests are answered at first, for a worker asks a model's first one alone. Then all that are
    under way take longer than a graceful shutdown waits."""
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > 0, fleet.logs)
    quick = fleet.mistral.requests
    fleet.mistral.latency_s = 20
    wait_for(lambda: fleet.mistral.requests >= quick + MAX_IN_FLIGHT, fleet.logs)
    wait_for(lambda: fleet.mistral.concurrent >= MAX_IN_FLIGHT, fleet.logs)
    return batch


def test_a_killed_worker_costs_no_more_than_what_it_had_in_flight(fleet: Fleet) -> None:
    fleet.environment["LABELMILL_LEASE_S"] = "4"
    victim = fleet.start_worker(queues="classify")
    fleet.start_worker(queues="classify")
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > ROWS // 5, fleet.logs)
    victim.send_signal(signal.SIGKILL)
    fleet.check(batch)
    assert fleet.billed() - ROWS <= MAX_IN_FLIGHT * PER_REQUEST
    assert fleet.mistral.most_concurrent <= 2 * MAX_IN_FLIGHT


def test_a_worker_told_to_end_hands_back_at_once_and_nothing_is_paid_twice(fleet: Fleet) -> None:
    victim = fleet.start_worker(queues="classify")
    fleet.start_worker(queues="classify")
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > ROWS // 5, fleet.logs)
    victim.send_signal(signal.SIGTERM)
    victim.wait(60)
    fleet.check(batch)
    assert fleet.billed() == ROWS


@pytest.mark.parametrize("told", [(signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT)], ids=["SIGQUIT", "SIGINT twice"])
def test_a_worker_told_to_end_at_once_waits_for_no_request_and_hands_back(
    fleet: Fleet, tmp_path: Path, told: tuple[signal.Signals, ...]
) -> None:
    victim = fleet.start_worker(queues="classify")
    batch = submit_to_a_mistral_that_hangs(fleet)
    for number in told:
        victim.send_signal(number)
        wait_for(lambda: "Hitting Ctrl+C again" in fleet.logs(), fleet.logs)  # the second one is another signal then
    assert victim.wait(60) in (0, 1)  # which of the two, Celery leaves to the moment
    assert "Traceback" not in (tmp_path / "process-0.log").read_text()
    with reading(fleet.client.context.engine) as connection:
        assert not connection.execute(text("SELECT count(*) FROM chunks WHERE state = 'claimed'")).scalar_one()
    fleet.mistral.latency_s = 0.05
    fleet.start_worker(queues="classify")  # what was released has a message
    fleet.check(batch)


def test_processes_that_carry_out_tasks_are_killed_when_their_worker_is_told_to_end_at_once(
    fleet: Fleet, tmp_path: Path
) -> None:
    victim = fleet.start_worker("prefork", queues="classify")
    batch = submit_to_a_mistral_that_hangs(fleet)
    victim.send_signal(signal.SIGQUIT)
    assert victim.wait(60) == 0
    assert "Traceback" not in (tmp_path / "process-0.log").read_text()
    fleet.mistral.latency_s = 0.05
    fleet.start_worker(queues="classify")
    fleet.check(batch)


def test_losing_all_of_redis_delays_a_batch_and_loses_nothing(fleet: Fleet) -> None:
    import redis  # noqa: PLC0415 - this test alone speaks to it

    fleet.start_worker(queues="classify")
    batch = fleet.submit()
    wait_for(lambda: fleet.billed() > ROWS // 5, fleet.logs)
    with redis.Redis.from_url(fleet.redis.url) as client:
        client.flushall()
    fleet.check(batch)
    assert fleet.billed() == ROWS


def test_a_batch_submitted_while_redis_is_down_starts_when_it_is_back(fleet: Fleet) -> None:
    fleet.start_worker(queues="classify")
    fleet.redis.kill()
    batch = fleet.submit()
    assert batch.status()["state"] == "queued"
    fleet.redis.start()
    fleet.check(batch)
    assert fleet.billed() == ROWS
