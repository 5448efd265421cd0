"""A fault nobody foresaw ends a job after some tries, and never a training."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.engine import Engine

from labelmill.contracts.database import reading, writing
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import JobMessage
from labelmill.contracts.tables import DatasetRow, TrainingRow
from labelmill_worker.store.faults import GIVE_UP_AFTER, record_fault


def test_a_dataset_ends_at_the_last_fault_and_not_before(engine: Engine) -> None:
    job_id = new_id(Kind.DATASET)
    with writing(engine) as connection:
        connection.execute(insert(DatasetRow).values(id=job_id, state="preparing", name="n", spec={}))
    for _ in range(GIVE_UP_AFTER - 1):
        record_fault(engine, JobMessage(job_id=job_id), ValueError("with a secret in it"))
    assert _state(engine, DatasetRow, job_id) == ("preparing", None)
    record_fault(engine, JobMessage(job_id=job_id), ValueError("with a secret in it"))
    state, error = _state(engine, DatasetRow, job_id)
    assert state == "failed"
    assert "ValueError" in (error or "")
    assert "secret" not in (error or "")


def test_a_training_is_never_given_up_for_a_fault_of_ours(engine: Engine) -> None:
    job_id = new_id(Kind.TRAINING)
    with writing(engine) as connection:
        connection.execute(
            insert(TrainingRow).values(
                id=job_id, state="running", name="n", method="factory", dataset_id="prep_1", options={}
            )
        )
    for _ in range(GIVE_UP_AFTER + 1):
        record_fault(engine, JobMessage(job_id=job_id), ValueError())
    assert _state(engine, TrainingRow, job_id) == ("running", None)


def _state(engine: Engine, table: type[DatasetRow | TrainingRow], job_id: str) -> tuple[str, str | None]:
    with reading(engine) as connection:
        row = connection.execute(select(table.state, table.error).where(table.id == job_id)).one()
    return row.state, row.error
