"""The exit code of a command that waits for a job says how the job ended; one that only looks exits with 0."""

from __future__ import annotations

import json

import pytest
from command_line import Run
from sqlalchemy import insert

from labelmill.core.database import connect, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, DatasetRow, EvaluationRow, ModelRow, TrainingRow

pytestmark = pytest.mark.acceptance

_DATASET = {"id": "prep_00000000000000000000aaaa", "name": "d", "version": 1, "spec": {}}
_TRAINING = {
    "id": "train_00000000000000000000aaaa",
    "name": "m",
    "method": "factory",
    "dataset_id": _DATASET["id"],
    "options": {},
}
_BATCH = {"id": "batch_00000000000000000000aaaa", "no": 1, "model_no": 1, "model_ref": "m", "options": {}, "rows": 2}
_EVALUATION = {
    "id": "eval_00000000000000000000aaaa",
    "model_no": 1,
    "model_ref": "m@1",
    "dataset_id": _DATASET["id"],
    "dataset_ref": "d@1",
    "split": "test",
}


@pytest.mark.parametrize(
    ("table", "job", "ended", "code"),
    [
        (DatasetRow, _DATASET, {"state": "ready"}, 0),
        (DatasetRow, _DATASET, {"state": "failed", "error": "no rows", "error_code": "invalid_input"}, 1),
        (TrainingRow, _TRAINING, {"state": "succeeded", "model_no": 1}, 0),
        (TrainingRow, _TRAINING, {"state": "failed", "error": "no", "error_code": "remote_failed"}, 1),
        (TrainingRow, _TRAINING, {"state": "failed", "error": "no", "error_code": "credentials_refused"}, 5),
        (TrainingRow, _TRAINING, {"state": "awaiting_approval"}, 4),
        (TrainingRow, _TRAINING, {"state": "cancelled"}, 6),
        (BatchRow, _BATCH, {"state": "completed", "failed": 0}, 0),
        (BatchRow, _BATCH, {"state": "completed", "failed": 1}, 3),
        (BatchRow, _BATCH, {"state": "failed", "error": "no", "error_code": "request_refused", "failed": 1}, 1),
        (BatchRow, _BATCH, {"state": "failed", "error": "no", "error_code": "credentials_refused"}, 5),
        (BatchRow, _BATCH, {"state": "cancelled", "failed": 1}, 6),
        (BatchRow, _BATCH, {"state": "paused"}, 4),
        (EvaluationRow, _EVALUATION, {"state": "completed"}, 0),
        (EvaluationRow, _EVALUATION, {"state": "completed", "summary": {"rows": 4, "failed": 0}}, 0),
        (EvaluationRow, _EVALUATION, {"state": "completed", "summary": {"rows": 4, "failed": 1}}, 3),
        (EvaluationRow, _EVALUATION, {"state": "failed", "error": "no", "error_code": "permanent"}, 1),
        (EvaluationRow, _EVALUATION, {"state": "cancelled"}, 6),
    ],
)
def test_the_end_of_a_job_is_an_exit_code(
    run: Run, table: type, job: dict[str, object], ended: dict[str, object], code: int
) -> None:
    values = {**job, **ended}
    failed = values.pop("failed", 0)
    engine = connect("sqlite:///jobs.db")
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="factory"))
        connection.execute(insert(table).values(**values))
        if table is BatchRow:
            connection.execute(
                insert(ChunkRow).values(
                    batch_no=1, number=0, state="done", first_row=0, rows=2, texts=2, labelled=1, failed=failed
                )
            )
    engine.dispose()
    watched = run("watch", str(job["id"]))
    assert watched.code == code
    assert json.loads(watched.out)["state"] == ended["state"]
    assert ("error" not in ended) or str(ended["error"]) in watched.err
    assert run("status", str(job["id"])).code == 0
