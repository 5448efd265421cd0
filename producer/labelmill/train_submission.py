"""Submitting a training, and the word that lets it spend money."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from sqlalchemy import and_, insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.database import db_now, writing
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.queue import REDIS_IS_DOWN, MessageSender
from labelmill.contracts.specs import TrainSpec
from labelmill.contracts.states import TrainingState
from labelmill.contracts.tables import EventRow, TrainingRow, utc_now
from labelmill.evaluate_submission import ready_dataset
from labelmill.registry import check_name

METHODS = ("factory",)
_OPTIONS = {"base_model": "model", "steps": "steps", "learning_rate": "learning-rate", "wandb_project": "wandb-project"}


def submit_training(
    engine: Engine,
    sender: MessageSender,
    *,
    name: str,
    dataset: str,
    method: str | None,
    base_model: str | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    max_cost: float | None = None,
    yes: bool = False,
    wandb_project: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> str:
    """Submit a training of a new version of model `name` on `dataset` (`name` or `name@version`). Returns its id.

    It waits for `approve` if it would cost more than `max_cost` (in the currency Mistral bills in), or if there is
    neither `max_cost` nor `yes`. With Redis down it is accepted all the same and `warn` is told.
    Raises NotFound, InvalidInput.
    """
    check_name(name)
    check_method(method)
    if max_cost is not None and not (math.isfinite(max_cost) and max_cost >= 0):
        raise InvalidInput("--max-cost must be 0 or more")
    spec = _specify(base_model=base_model, steps=steps, learning_rate=learning_rate, wandb_project=wandb_project)
    job_id = new_id(Kind.TRAINING)
    with writing(engine) as connection:
        dataset_row = ready_dataset(connection, dataset)
        if not (dataset_row.splits or {}).get("train"):
            raise InvalidInput(f"dataset {dataset!r} has no rows to train on")
        values = {
            "id": job_id, "state": TrainingState.QUEUED.value, "name": name, "method": method,
            "dataset_id": dataset_row.id, "options": spec.model_dump(mode="json"), "max_cost": max_cost,
            # a cap is kept even with --yes: what costs more is a person's to allow
            "approved": yes and max_cost is None, "created_at": utc_now(),
        }  # fmt: skip
        connection.execute(insert(TrainingRow).values(values))
        event = {"job_id": job_id, "at": utc_now(), "state": TrainingState.QUEUED.value, "message": "submitted"}
        connection.execute(insert(EventRow).values(event))
    _tell_worker(sender, job_id, warn)
    return job_id


def approve(
    engine: Engine, sender: MessageSender, training_id: str, warn: Callable[[str], None] = lambda _: None
) -> None:
    """Let a training that waits for approval spend what Mistral estimates: it is `running` from here on.

    Raises NotFound, InvalidInput when it does not wait.
    """
    waiting = and_(
        TrainingRow.id == training_id,
        TrainingRow.state == TrainingState.AWAITING_APPROVAL.value,
        TrainingRow.cancel_requested.is_(False),
    )
    running = TrainingState.RUNNING.value
    statement = update(TrainingRow).where(waiting)
    with writing(engine) as connection:
        # the worker starts a running training whose job still waits at Mistral
        approved = statement.values(
            state=running, approved=True, next_look_at=db_now(), due_at=None, changed_at=db_now()
        )
        if not connection.execute(approved).rowcount:
            row = connection.execute(
                select(TrainingRow.state, TrainingRow.cancel_requested).where(TrainingRow.id == training_id)
            ).first()
            if row is None:
                raise NotFound(f"no training has the id {training_id!r}")
            what = "being cancelled" if row.cancel_requested else row.state
            raise InvalidInput(f"{training_id} is {what}: it does not wait for approval")
        event = {"job_id": training_id, "at": utc_now(), "state": running, "message": "approved by a person"}
        connection.execute(insert(EventRow).values(event))
    _tell_worker(sender, training_id, warn)


def check_method(method: str | None) -> None:
    """Raise InvalidInput unless `method` is one that trains today."""
    if method is None:
        raise InvalidInput("say how to train: --method factory")
    if method not in METHODS:
        raise InvalidInput(f"there is no method {method!r} yet: --method factory is the only one")


def _specify(**fields: Any) -> TrainSpec:
    try:
        return TrainSpec(**{name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InvalidInput(f"--{_OPTIONS.get(str(first['loc'][0]), first['loc'][0])}: {first['msg']}") from error


def _tell_worker(sender: MessageSender, training_id: str, warn: Callable[[str], None]) -> None:
    try:
        sender.send(TRAIN, [JobMessage(job_id=training_id)])
    except BrokerUnavailable:
        warn(REDIS_IS_DOWN)
