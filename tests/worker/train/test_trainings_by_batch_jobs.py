"""Trainings and evaluations whose requests go by Mistral's Batch API: none of them is sent in realtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from asked import cancel, submit_evaluation
from memory_batch_jobs import MemoryBatchJobs
from memory_mistral import MemoryMistral
from school import School, open_school
from sqlalchemy import select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading
from labelmill.core.database.tables import BatchRow, RemoteBatchRow


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


def test_other_modes_are_refused(school: School) -> None:
    with pytest.raises(InvalidInput, match="mode"):
        school.train(mode="auto", method="embedding")
    with pytest.raises(InvalidInput, match="mode"):
        submit_evaluation(school.engine, school.sender, model="m", dataset="small", mode="auto")
