"""The history in `events` has every transition of every job exactly once: it is a path through the kind's table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from asked import cancel, retry, submit_evaluation
from mill import Mill, some_texts
from sqlalchemy import select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, refuse_texts_with
from workshop import SCHEMA, Workshop, intent_rows

from labelmill.contracts.job_kinds import KINDS
from labelmill.contracts.states import BatchState
from labelmill.core.database import reading
from labelmill.core.jobs.events import read_events
from labelmill.core.jobs.tables import TABLE_OF


def _histories(engine: Engine) -> dict[str, list[str]]:
    """Job → the states that its history tells, for jobs that have one. Raises AssertionError for one that is no path
    through its kind's transitions, or that ends elsewhere than the job."""
    told: dict[str, list[str]] = {}
    for event in read_events(engine):
        if event.state is not None:
            told.setdefault(event.job_id, []).append(event.state)
    for kind, entry in KINDS.items():
        table = TABLE_OF[kind]
        with reading(engine) as connection:
            states = {row.id: row.state for row in connection.execute(select(table.id, table.state))}
        for job_id, state in states.items():
            if job_id not in told:
                continue  # made by the test itself
            path = [entry.states(one) for one in told[job_id]]  # type: ignore[operator]
            assert path[-1].value == state, told[job_id]
            for old, new in pairwise(path):
                assert new in entry.transitions[old], told[job_id]
    return told


def test_a_batch_that_is_retried_and_one_that_is_cancelled_tell_every_state(mill: Mill) -> None:
    mill.mistral.faults.append(refuse_texts_with("bad"))
    retried = mill.submit([*some_texts(10), "bad"])
    mill.run(retried)
    mill.mistral.faults.clear()
    retry(mill.engine, mill.sender, retried)
    mill.run(retried)
    cancelled = mill.submit(some_texts(10))
    cancel(mill.engine, mill.sender, cancelled)
    mill.run(cancelled)
    told = _histories(mill.engine)
    assert told[retried] == ["queued", "running", "completed", "running", "completed"]
    assert told[cancelled] == ["queued", "cancelled"]


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(engine, mistral, redis_url, tmp_path)
    dataset_id = made.dataset("small", SCHEMA, train=intent_rows("t", 9), test=intent_rows("x", 20))
    made.model("m", SCHEMA, dataset_id=dataset_id, dataset_fingerprint="print of small")
    yield made
    made.close()


def test_an_evaluation_and_its_batch_tell_every_state(shop: Workshop) -> None:
    done, cancelled = (submit_evaluation(shop.engine, shop.sender, model="m", dataset="small") for _ in range(2))
    assert shop.run(done)["state"] == "completed"
    cancel(shop.engine, shop.sender, cancelled)
    told = _histories(shop.engine)
    assert told[done] == ["queued", "running", "completed"]
    assert told[cancelled][0 :: len(told[cancelled]) - 1] == ["queued", "cancelled"]
    batch_id = shop.status(done)["batch"]
    assert told[batch_id] == ["submitting", "queued", "running", "completed"]


def test_a_batch_without_rows_tells_that_it_ran(mill: Mill) -> None:
    """Recovery completes it, through `running`."""
    from labelmill_worker.store.stalled import complete_finished_batches, runnable_batches  # noqa: PLC0415 - of recovery

    empty = mill.submit([])
    complete_finished_batches(mill.engine, runnable_batches(mill.engine))
    assert mill.status(empty)["state"] == BatchState.COMPLETED.value
    assert _histories(mill.engine)[empty] == ["queued", "running", "completed"]
