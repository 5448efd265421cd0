"""Each transition of a job is guarded by its old state and leaves one line in `events`, in the same transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.job_kinds import ENDED, kind_of_state, moves_to, states_before
from labelmill.contracts.states import BatchState, ChunkState, DatasetState, EvaluationState, State, TrainingState
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import EventRow, ModelRow
from labelmill.core.database.tables.base import Leased
from labelmill.core.jobs.tables import table_of
from labelmill.core.jobs.transitions import create_job, move_job

_FIRST: tuple[State, ...] = (
    DatasetState.QUEUED,
    TrainingState.QUEUED,
    BatchState.SUBMITTING,
    EvaluationState.QUEUED,
)
_IDS = {DatasetState: "prep_1", TrainingState: "train_1", BatchState: "batch_1", EvaluationState: "eval_1"}


def _create(engine: Engine, state: State) -> str:
    """A job in that first state. Returns its id."""
    job_id = _IDS[type(state)]  # type: ignore[index]
    model = {"model_no": 1, "model_ref": "ft:x"}
    values = {
        DatasetState: {"name": "d", "spec": {}},
        TrainingState: {"name": "t", "method": "factory", "dataset_id": "prep_1", "options": {}},
        BatchState: {**model, "options": {}},
        EvaluationState: {**model, "dataset_id": "prep_1", "dataset_ref": "d@1", "split": "test"},
    }[type(state)]  # type: ignore[index]
    with writing(engine) as connection:
        if connection.scalar(select(ModelRow.no)) is None:
            connection.execute(insert(ModelRow).values(no=1, name="ft:x", version=0, method="factory"))
        create_job(connection, job_id, state, "submitted", **values)
    return job_id


def _set(engine: Engine, job_id: str, state: State) -> None:
    table = table_of(state)
    with writing(engine) as connection:
        connection.execute(update(table).where(table.id == job_id).values(state=state.value, finished_at=None))


def _events(engine: Engine, job_id: str) -> list[tuple[str | None, str]]:
    with reading(engine) as connection:
        found = select(EventRow.state, EventRow.message).where(EventRow.job_id == job_id).order_by(EventRow.no)
        return [tuple(row) for row in connection.execute(found)]


@pytest.mark.parametrize("first", _FIRST, ids=lambda state: type(state).__name__)
def test_every_transition_of_the_table_is_made_once_and_leaves_one_event(engine: Engine, first: State) -> None:
    job_id = _create(engine, first)
    assert _events(engine, job_id) == [(first.value, "submitted")]
    table = table_of(first)
    for old, following in kind_of_state(first).transitions.items():
        for new in following:
            _set(engine, job_id, old)
            before = len(_events(engine, job_id))
            with writing(engine) as connection:
                assert move_job(connection, job_id, new, old=old, message="why")
                assert not move_job(connection, job_id, new, old=old), "it is in another state by now"
            assert _events(engine, job_id)[before:] == [(new.value, "why")]
            with reading(engine) as connection:
                row = connection.execute(select(table.state, table.finished_at).where(table.id == job_id)).one()
            assert row.state == new.value
            assert (row.finished_at is not None) is (new in ENDED)


@pytest.mark.parametrize("first", _FIRST, ids=lambda state: type(state).__name__)
def test_a_transition_that_is_not_in_the_table_is_refused(engine: Engine, first: State) -> None:
    job_id = _create(engine, first)
    for old in type(first):
        for new in type(first):
            if not moves_to(old, new):
                with writing(engine) as connection, pytest.raises(ValueError, match="no move from"):
                    move_job(connection, job_id, new, old=old)
    assert _events(engine, job_id) == [(first.value, "submitted")]


def test_a_transition_that_is_rolled_back_leaves_no_event(engine: Engine) -> None:
    job_id = _create(engine, DatasetState.QUEUED)

    def move_and_fail() -> None:
        with writing(engine) as connection:
            assert move_job(connection, job_id, DatasetState.PREPARING)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        move_and_fail()
    assert _events(engine, job_id) == [("queued", "submitted")]


def test_a_worker_without_the_lease_moves_nothing_and_an_ended_job_gives_its_lease_up(engine: Engine) -> None:
    job_id = _create(engine, TrainingState.QUEUED)
    table = table_of(TrainingState.QUEUED)
    assert issubclass(table, Leased)
    with writing(engine) as connection:
        connection.execute(update(table).values(lease_token="mine", lease_until=1e12, next_look_at=1.0))
        assert not move_job(connection, job_id, TrainingState.FAILED, token="another's")
        assert move_job(connection, job_id, TrainingState.FAILED, token="mine", error="why")
        row = connection.execute(
            select(table.lease_token, table.lease_until, table.next_look_at, table.error).where(table.id == job_id)
        ).one()
    assert tuple(row) == (None, None, None, "why")
    assert [state for state, _ in _events(engine, job_id)] == ["queued", "failed"]


def test_a_job_that_goes_on_after_its_end_has_no_error_and_no_end(engine: Engine) -> None:
    job_id = _create(engine, BatchState.SUBMITTING)
    table = table_of(BatchState.SUBMITTING)
    with writing(engine) as connection:
        assert move_job(connection, job_id, BatchState.FAILED, error="why", error_code="x")
        assert move_job(connection, job_id, BatchState.RUNNING, old=BatchState.FAILED)
        row = connection.execute(select(table.error, table.error_code, table.finished_at)).one()
    assert tuple(row) == (None, None, None)


def test_without_an_old_state_a_job_moves_from_wherever_the_table_allows() -> None:
    assert states_before(BatchState.CANCELLED) == {
        BatchState.SUBMITTING,
        BatchState.QUEUED,
        BatchState.RUNNING,
        BatchState.PAUSED,
    }
    assert states_before(ChunkState.CLAIMED) == {ChunkState.PENDING}
