"""Trainings and evaluations whose requests go by Mistral's Batch API: none of them is sent in realtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import cancel, submit_evaluation
from memory_batch_jobs import MemoryBatchJobs
from memory_mistral import MemoryMistral
from school import School, open_school
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral
from workshop import Killed

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, EvaluationRow, RemoteBatchRow, TrainingRow
from labelmill.core.jobs.dispatch import send_remote_batch


@pytest.fixture
def school(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[School]:
    made = open_school(engine, mistral, redis_url, tmp_path)
    made.resources = replace(made.resources, batch_jobs_override=MemoryBatchJobs(MemoryMistral()))
    yield made
    made.close()


def _modes(school: School) -> set[str]:
    with reading(school.engine) as connection:
        return set(connection.scalars(select(BatchRow.mode)))


@pytest.mark.parametrize(
    "options", [{"method": "embedding"}, {"method": "prompt", "shots": 1, "shot_selection": "nearest"}]
)
def test_a_training_and_an_evaluation_send_nothing_in_realtime(
    school: School, mistral: StrictMistral, options: dict[str, object]
) -> None:
    training = school.run(school.train(mode="batch", **options))
    assert training["state"] == "succeeded", training
    evaluation = school.run(
        submit_evaluation(school.engine, school.sender, model="m", dataset="small", split="validation", mode="batch")
    )
    assert evaluation["state"] == "completed", evaluation
    assert evaluation["metrics"]["intent"]["rows"] == 40
    assert _modes(school) == {"batch"}
    assert mistral.requests == 0


def test_a_cancelled_training_has_its_batch_jobs_stopped(school: School) -> None:
    jobs = school.resources.batch_jobs
    assert isinstance(jobs, MemoryBatchJobs)
    jobs.statuses = ["RUNNING"] * 1000
    training = school.train(mode="batch", method="embedding")
    while not jobs.created:
        school.step()
    cancel(school.engine, school.sender, training)
    while school.queue.waiting:
        school.step()
    assert school.status(training)["state"] == "cancelled"
    assert {job.status for job in jobs.jobs.values()} <= {"CANCELLED"}
    with reading(school.engine) as connection:
        assert set(connection.scalars(select(RemoteBatchRow.step))) == {"done"}
    assert not jobs.files


@pytest.mark.parametrize("method", ["embedding", "prompt"])
@pytest.mark.parametrize("call", ["create", "results"])
def test_workers_that_are_killed_cost_a_training_and_an_evaluation_nothing_twice(
    school: School, call: str, method: str
) -> None:
    jobs = school.resources.batch_jobs
    assert isinstance(jobs, MemoryBatchJobs)
    left = [0]

    def die(called: str) -> None:
        if called == call and left[0]:
            left[0] -= 1
            raise Killed

    jobs.mistral.after_call = die
    left[0] = 1
    training = _run(school, school.train(mode="batch", method=method))
    assert training["state"] == "succeeded", training
    assert not left[0]
    trained, jobs_made = sum(jobs.mistral.billed.values()), len(jobs.created)
    left[0] = 1
    options = {"model": "m", "dataset": "small", "split": "validation", "mode": "batch"}
    evaluation = _run(school, submit_evaluation(school.engine, school.sender, **options))
    assert evaluation["state"] == "completed", evaluation
    assert not left[0]
    assert evaluation["metrics"]["intent"]["rows"] == 40
    assert trained == (160 if method == "embedding" else 1)  # the one is the worker's own question
    assert sum(jobs.mistral.billed.values()) == trained + 40
    assert (jobs_made, len(jobs.created)) == (1, 2)


def _run(school: School, job: str) -> dict[str, Any]:
    """Until it has ended, by as many workers as are needed."""
    while True:
        try:
            return school.run(job)
        except Killed:
            _recover(school, job)


def _recover(school: School, job: str) -> None:
    """As if the dead worker's leases had run out, and every step of batch jobs were overdue."""
    with writing(school.engine) as connection:
        for table in (RemoteBatchRow, ChunkRow, TrainingRow, EvaluationRow):
            connection.execute(update(table).where(table.lease_until.is_not(None)).values(lease_until=1.0))
        connection.execute(update(RemoteBatchRow).values(next_look_at=1.0))
        open_ones = list(connection.scalars(select(RemoteBatchRow.no).where(RemoteBatchRow.step != "done")))
    for number in open_ones:
        send_remote_batch(school.sender, number, "normal")


def test_other_modes_are_refused(school: School) -> None:
    with pytest.raises(InvalidInput, match="mode"):
        school.train(mode="auto", method="embedding")
    with pytest.raises(InvalidInput, match="mode"):
        submit_evaluation(school.engine, school.sender, model="m", dataset="small", mode="auto")
