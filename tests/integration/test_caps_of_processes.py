"""A cap over eight processes, of which some are killed: what the stand-in for Mistral billed stays below it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import ROWS, Fleet, texts, wait_for
from sqlalchemy import func, select
from strict_mistral import StrictMistral

from labelmill.core.database import reading
from labelmill.core.database.tables import LedgerRow, ReservationRow
from labelmill.core.money.token_counts import count_tokens

PRICE = 1000.0  #: USD for a million tokens.
#: What the stand-in bills a text, by the rule that counts where no tokens are reported (the same for all of these).
COST_OF_A_TEXT = count_tokens(texts()[0]) * PRICE / 1e6


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    with StrictMistral() as mistral:
        made = Fleet(tmp_path, database_url, mistral, {"stand-in": (PRICE, 0.0)})
        yield made
        made.stop()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_cap_holds_over_eight_processes_of_which_some_are_killed(fleet: Fleet) -> None:
    fleet.mistral.latency_s = 0.05
    fleet.environment["LABELMILL_LEASE_S"] = "3"
    cap = 0.6 * ROWS * COST_OF_A_TEXT
    worker = fleet.start_worker("prefork", slots=8, queues="classify")
    batch = fleet.submit(max_cost=cap)
    wait_for(lambda: fleet.billed() > ROWS // 10, fleet.logs)
    for child in children_of(worker.pid)[:3]:
        os.kill(child, signal.SIGKILL)
    wait_for(lambda: batch.status()["state"] == "paused", lambda: f"{batch.status()} {fleet.logs()}")
    status = batch.status()
    assert status["error_code"] == "cap_reached"
    assert fleet.mistral.concurrent == 0, "nothing is under way"
    assert 0.5 * cap < fleet.billed() * COST_OF_A_TEXT <= cap
    with reading(fleet.client.context.engine) as connection:
        charged = connection.scalar(select(func.sum(LedgerRow.amount)).where(LedgerRow.job_id == batch.id))
        assert connection.scalar(select(func.count()).select_from(ReservationRow)) == 0
    assert charged is not None
    assert charged <= cap * 1.0001
    batch.retry(max_cost=3 * cap)
    fleet.check(batch)
