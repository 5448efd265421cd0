"""An unforeseen fault is counted under the claim, and ends the work after some in a row."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.states import DatasetState
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import DatasetRow, EventRow
from labelmill_worker.store.faults import MAX_FAULTS, UnforeseenFault, record_job_fault
from labelmill_worker.store.jobs import claim_job
from labelmill_worker.store.transitions import move_job


@pytest.fixture
def job_id(engine: Engine) -> str:
    made = new_id(Kind.DATASET)
    with writing(engine) as connection:
        connection.execute(insert(DatasetRow).values(id=made, state="queued", name="n", spec={}))
    return made


def _claim(engine: Engine, job_id: str) -> str:
    claimed = claim_job(engine, DatasetRow, job_id, 15)
    assert claimed is not None
    return claimed[1]


def _fault(engine: Engine, job_id: str, token: str) -> UnforeseenFault:
    return record_job_fault(engine, DatasetRow, job_id, token, ValueError("with a secret in it"))


def test_the_fifth_fault_in_a_row_is_the_last_and_tells_no_words_of_it(engine: Engine, job_id: str) -> None:
    token = _claim(engine, job_id)
    found = [_fault(engine, job_id, token) for _ in range(MAX_FAULTS)]
    assert [one.is_last for one in found] == [False] * (MAX_FAULTS - 1) + [True]
    assert "ValueError, 5 times" in found[-1].message
    assert "secret" not in found[-1].message


def test_a_job_that_moves_on_has_no_fault_behind_it(engine: Engine, job_id: str) -> None:
    token = _claim(engine, job_id)
    for _ in range(MAX_FAULTS - 1):
        _fault(engine, job_id, token)
    with writing(engine) as connection:
        assert move_job(connection, job_id, DatasetState.PREPARING, old=DatasetState.QUEUED, token=token)
    assert _fault(engine, job_id, token).count == 1


def test_a_worker_that_has_lost_the_lease_counts_nothing(engine: Engine, job_id: str) -> None:
    _claim(engine, job_id)
    with writing(engine) as connection:
        connection.execute(update(DatasetRow).values(faults=MAX_FAULTS))
    assert not _fault(engine, job_id, "another-token").is_last
    with reading(engine) as connection:
        assert connection.scalar(select(DatasetRow.faults)) == MAX_FAULTS
        assert connection.scalar(select(EventRow.message)) is None
