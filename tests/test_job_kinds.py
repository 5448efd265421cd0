"""Every kind of job is complete: its entry, its table, its task, its document and who recovers it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from labelmill.contracts.ids import kind_of, new_id
from labelmill.contracts.job_kinds import (
    BATCH,
    CONTRACT_OF,
    DATASET,
    ENDED,
    EVALUATION,
    KINDS,
    QUEUE_OF,
    RESTING,
    TRAINING,
    Kind,
    Recovery,
    check_kinds,
)
from labelmill.contracts.states import BatchState, DatasetState, EvaluationState, State, TrainingState
from labelmill.core.jobs.tables import LEASED, TABLE_OF
from labelmill.services.jobs.documents import _WHOLE
from labelmill_worker.runtime.tasks.registry import work_of


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_job_has_all_it_needs(engine: Engine, kind: Kind) -> None:
    entry = KINDS[kind]
    assert TABLE_OF[kind].kind is kind
    assert TABLE_OF[kind].__tablename__ in inspect(engine).get_table_names(), "no migration makes its table"
    assert callable(work_of(entry.task))
    assert kind in _WHOLE, "services/jobs/documents.py does not say what `status` tells of it"
    assert (kind in LEASED) is (entry.recovery is Recovery.BY_LEASE)
    assert kind_of(new_id(kind)) is kind
    assert QUEUE_OF[entry.task] == entry.queue
    assert CONTRACT_OF[entry.task] is entry.message


def test_a_task_without_a_module_is_an_error_that_names_it() -> None:
    with pytest.raises(TypeError, match=r"the task labelmill\.translate needs a function run in .*tasks\.translate"):
        work_of("labelmill.translate")


_LEAD_NOWHERE = {state: frozenset[State]() for state in DatasetState}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transitions": {DatasetState.QUEUED: frozenset({DatasetState.READY})}}, "no transitions are given"),
        ({"transitions": _LEAD_NOWHERE}, "stays for ever in the open state queued, preparing"),
        ({"queue": "translate"}, "no worker serves the queue translate"),
        ({"ended": frozenset()}, "some of its states must be ended ones"),
        ({"runnable": frozenset({DatasetState.READY})}, "only in open states"),
        ({"why_not_cancelled": ""}, "say how it is cancelled, or why it cannot be"),
        ({"cancelled": DatasetState.READY}, "an open job must be able to go to ready"),
        ({"retried": DatasetState.PREPARING}, "no ended state leads to preparing"),
        ({"task": TRAINING.task}, "two kinds of job have the same task"),
        ({"id_prefix": BATCH.id_prefix}, "two kinds of job have the same id prefix: batch_"),
        ({"kind": Kind.BATCH}, "no entry in contracts/job_kinds.py for the kind of job dataset"),
    ],
)
def test_an_entry_that_is_incomplete_is_refused_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_kinds([replace(DATASET, **changes), TRAINING, BATCH, EVALUATION])


def test_a_kind_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no entry in .* for the kind of job evaluation"):
        check_kinds([DATASET, TRAINING, BATCH])


def test_what_is_open_ended_and_runnable_is_as_the_design_says() -> None:
    assert {"ready", "succeeded", "completed", "failed", "cancelled", "paused"} == ENDED
    assert {TrainingState.AWAITING_APPROVAL} == RESTING - ENDED
    assert BATCH.runnable == {BatchState.QUEUED, BatchState.RUNNING}
    assert BATCH.open - BATCH.runnable == {BatchState.SUBMITTING}
    assert BATCH.retried_from == {BatchState.COMPLETED, BatchState.FAILED, BatchState.PAUSED}
    assert (TRAINING.retried_from, EVALUATION.retried_from) == ({TrainingState.FAILED}, {EvaluationState.FAILED})
    assert EVALUATION.open == {EvaluationState.QUEUED, EvaluationState.RUNNING}
