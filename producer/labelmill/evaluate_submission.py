"""Submitting an evaluation: a worker classifies the split and compares."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.database import writing
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import EVALUATE, JobMessage
from labelmill.contracts.queue import REDIS_IS_DOWN, MessageSender
from labelmill.contracts.states import DatasetState, EvaluationState
from labelmill.contracts.tables import DatasetRow, EvaluationRow, EventRow, utc_now
from labelmill.registry import resolve_model


def submit_evaluation(
    engine: Engine,
    sender: MessageSender,
    *,
    model: str,
    dataset: str,
    split: str = "test",
    warn: Callable[[str], None] = lambda _: None,
) -> str:
    """Submit an evaluation of `model` on a split of `dataset` (`name` or `name@version`). Returns its id.

    Raises NotFound, InvalidInput.
    """
    job_id = new_id(Kind.EVALUATION)
    with writing(engine) as connection:
        model_row = resolve_model(connection, model)
        dataset_row = ready_dataset(connection, dataset)
        if split not in (dataset_row.files or {}):
            there = ", ".join(dataset_row.files or {})
            raise InvalidInput(f"dataset {dataset!r} has no split {split!r}; it has {there}")
        values = {
            "id": job_id, "state": EvaluationState.QUEUED.value, "model_no": model_row.no, "model_ref": model,
            "dataset_id": dataset_row.id, "dataset_ref": f"{dataset_row.name}@{dataset_row.version}", "split": split,
            "created_at": utc_now(),
        }  # fmt: skip
        connection.execute(insert(EvaluationRow).values(values))
        event = {"job_id": job_id, "at": utc_now(), "state": EvaluationState.QUEUED.value, "message": "submitted"}
        connection.execute(insert(EventRow).values(event))
    try:
        sender.send(EVALUATE, [JobMessage(job_id=job_id)])
    except BrokerUnavailable:
        warn(REDIS_IS_DOWN)
    return job_id


def ready_dataset(connection: Connection, ref: str) -> DatasetRow:
    """The dataset `name@version`, or the latest version of `name`. Raises NotFound."""
    name, _, version = ref.partition("@")
    statement = (
        select(DatasetRow.__table__)
        .where(DatasetRow.name == name, DatasetRow.state == DatasetState.READY.value, DatasetRow.repeats.is_(None))
        .order_by(DatasetRow.version.desc())
    )
    if version:
        if not version.isdigit():
            raise InvalidInput(f"{ref!r} names no version: write {name}@1")
        statement = statement.where(DatasetRow.version == int(version))
    row = connection.execute(statement.limit(1)).mappings().first()
    if row is None:
        raise NotFound(f"no dataset {ref!r} is ready; `labelmill datasets` lists them")
    return DatasetRow(**row)
