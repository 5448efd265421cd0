"""Numbers of Mistral's that cannot be what they are called are not believed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from labelmill_worker.mistral.decoding import job_of
from labelmill_worker.train.factory.remote_job import may_start


def job(**metadata: Any) -> dict[str, Any]:
    point = {"step_number": metadata.pop("step", 1), "metrics": {"train_loss": 10**400}}
    answer = {"id": "job", "status": "VALIDATED", "created_at": 0, "training_files": [], "events": []}
    return {**answer, "metadata": metadata, "checkpoints": [point]}


@pytest.mark.parametrize("cost", [-5, -0.01, math.nan, math.inf, -math.inf, 10**400, "1", None, 2e9])
def test_a_cost_that_cannot_be_one_starts_no_training(cost: Any) -> None:
    found = job_of(job(cost=cost)).cost
    assert found is None
    assert not may_start(found, 1.0, approved=False)


@pytest.mark.parametrize("count", [-5, 2**63, 10**400, 1.5, True, "7"])
def test_a_count_that_cannot_be_one_is_as_good_as_none(count: Any) -> None:
    found = job_of(job(cost=1, train_tokens=count, data_tokens=count, expected_duration_seconds=count, step=count))
    assert (found.train_tokens, found.data_tokens, found.expected_duration_s) == (None, None, None)
    assert found.checkpoints[0].step == 0
    assert found.checkpoints[0].train_loss is None


def test_ordinary_numbers_are_believed() -> None:
    found = job_of(job(cost=4.5, train_tokens=10, data_tokens=5, expected_duration_seconds=60))
    assert (found.cost, found.train_tokens, found.data_tokens, found.expected_duration_s) == (4.5, 10, 5, 60)
