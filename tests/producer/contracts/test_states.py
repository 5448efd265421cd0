"""The table of moves keeps the kinds of jobs apart."""

from __future__ import annotations

import pytest

from labelmill.contracts.job_kinds import moves_to
from labelmill.contracts.states import BatchState, DatasetState, EvaluationState, State, TrainingState


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DatasetState.QUEUED, DatasetState.PREPARING),
        (TrainingState.QUEUED, TrainingState.UPLOADING),
        (BatchState.QUEUED, BatchState.RUNNING),
        (EvaluationState.RUNNING, EvaluationState.COMPLETED),
    ],
)
def test_each_kind_moves_by_its_own_table(old: State, new: State) -> None:
    assert moves_to(old, new)


def test_states_of_the_same_word_do_not_lend_each_other_moves() -> None:
    assert not moves_to(TrainingState.QUEUED, TrainingState.RUNNING)
    assert not moves_to(EvaluationState.COMPLETED, EvaluationState.RUNNING)
    assert moves_to(BatchState.COMPLETED, BatchState.RUNNING)
    assert not moves_to(TrainingState.QUEUED, BatchState.RUNNING)
