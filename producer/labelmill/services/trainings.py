"""Submitting a training, and the word that lets it spend money."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.contracts.bounds import MAX_AMOUNT, check_plain_name, shown
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.ids import Kind, kind_of, new_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.specs import BASE_MODELS, TrainSpec, specify
from labelmill.contracts.states import TrainingState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import DatasetRow, TrainingRow
from labelmill.core.jobs.transitions import create_job, move_job
from labelmill.core.queue.sender import MessageSender, accepted
from labelmill.services.evaluations import ready_dataset

METHODS = ("embedding", "factory", "prompt")
DEFAULT_METHOD = "embedding"

#: Options that only some method has, by the field of `TrainSpec`.
_ONLY = {
    "steps": "factory",
    "learning_rate": "factory",
    "wandb_project": "factory",
    "suffix": "factory",
    "target_weights": "factory",
    "descriptions": "prompt",
    "shots": "prompt",
    "shot_selection": "prompt",
}
_OPTION_OF = {"base_model": "model", "target_weights": "target-weight", "descriptions": "label-description"}


def submit_training(
    engine: Engine,
    sender: MessageSender,
    *,
    name: str,
    dataset: str,
    method: str = DEFAULT_METHOD,
    max_cost: float | None = None,
    yes: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> str:
    """Submit a training of a new version of model `name` on `dataset` (`name` or `name@version`). Returns its id.

    `options` are fields of `TrainSpec`; None stands for the default. The training waits for `approve` if it would cost
    more than `max_cost` (in the currency of its estimate), or anything at all where there is neither `max_cost` nor
    `yes`. With Redis down it is accepted all the same and `warn` is told. Raises NotFound, InvalidInput.
    """
    check_plain_name("model", name)
    check_method(method)
    if max_cost is not None and not 0 <= max_cost <= MAX_AMOUNT:
        raise InvalidInput(f"--max-cost must be 0 or more, and at most {MAX_AMOUNT:,}")
    spec = _specify(method, options)
    job_id = new_id(Kind.TRAINING)
    with writing(engine) as connection:
        dataset_row = ready_dataset(connection, dataset)
        if not (dataset_row.splits or {}).get("train") and (method != "prompt" or spec.shots):
            raise InvalidInput(f"dataset {shown(dataset)} has no rows to train on")
        check_choice(dataset_row, method)
        check_labels(spec, dataset_row.label_schema or [])
        values = {
            "name": name,
            "method": method,
            "dataset_id": dataset_row.id,
            "options": spec.model_dump(mode="json"),
            "max_cost": max_cost,
            # a cap is kept even with --yes: what costs more is a person's to allow
            "approved": yes and max_cost is None,
        }
        create_job(connection, job_id, TrainingState.QUEUED, "submitted", **values)
    _tell_worker(sender, job_id, warn, announce)
    return job_id


def approve(
    engine: Engine, sender: MessageSender, training_id: str, warn: Callable[[str], None] = lambda _: None
) -> None:
    """Let a training that waits for approval spend what Mistral estimates: it is `running` from here on.

    Raises NotFound, InvalidInput when it does not wait.
    """
    if kind_of(training_id) is not Kind.TRAINING:
        raise NotFound(f"no training has the id {shown(training_id)}")
    with writing(engine) as connection:
        # the worker starts a running training whose job still waits at Mistral
        approved = move_job(
            connection,
            training_id,
            TrainingState.RUNNING,
            TrainingRow.cancel_requested.is_(False),
            old=TrainingState.AWAITING_APPROVAL,
            message="approved by a person",
            approved=True,
            next_look_at=db_now(),
            due_at=None,
            changed_at=db_now(),
        )
        if not approved:
            row = connection.execute(
                select(TrainingRow.state, TrainingRow.cancel_requested).where(TrainingRow.id == training_id)
            ).first()
            if row is None:
                raise NotFound(f"no training has the id {training_id!r}")
            what = "being cancelled" if row.cancel_requested else row.state
            raise InvalidInput(f"{training_id} is {what}: it does not wait for approval")
    _tell_worker(sender, training_id, warn)


def check_choice(dataset: DatasetRow, method: str) -> None:
    """Raise InvalidInput where a target has one label that every row has: a model of it would say nothing of a text."""
    for target in dataset.label_schema or []:
        if len(target["labels"]) > 1:
            continue
        (label,) = target["labels"]
        if not (target["multi"] and _some_rows_lack(dataset, target["name"], label)):
            raise InvalidInput(
                f"every row of dataset {dataset.name}@{dataset.version} has the same label for {target['name']!r}, "
                f"{label!r}: there is nothing to learn. Prepare it with rows of other labels, or without this target"
            )
        if method == "factory":
            raise InvalidInput(
                f"{target['name']!r} has one label, {label!r}, and a classifier that Mistral fine-tunes needs two of "
                "every target: train by another method"
            )


def _some_rows_lack(dataset: DatasetRow, target: str, label: str) -> bool:
    counted = (dataset.labels or {}).get(target, {})
    with_it = sum(counts.get(label, 0) for counts in counted.values())
    return bool(counted) and with_it < sum((dataset.splits or {}).values())


def check_method(method: str) -> None:
    """Raise InvalidInput unless there is such a method."""
    if method not in METHODS:
        raise InvalidInput(f"--method is one of {', '.join(METHODS)}, not {shown(method)}")


def check_labels(spec: TrainSpec, schema: Sequence[Mapping[str, Any]]) -> None:
    """A misspelt target or label must not silently go without its weight or description. Raises InvalidInput."""
    targets = {target["name"] for target in schema}
    for name in spec.target_weights:
        if name not in targets:
            raise InvalidInput(
                f"--target-weight names {shown(name)}; the dataset's targets are {', '.join(sorted(targets))}"
            )
    known = {label for target in schema for label in target["labels"]}
    known |= {f"{target['name']}.{label}" for target in schema for label in target["labels"]}
    for name in spec.descriptions:
        if name not in known:
            raise InvalidInput(f"{shown(name)} is described, but the dataset has no such label")


def _specify(method: str, options: Mapping[str, Any]) -> TrainSpec:
    given = {name: value for name, value in options.items() if value is not None and value != {}}
    for name in given:
        if _ONLY.get(name, method) != method:
            raise InvalidInput(f"--{_option(name)} goes with --method {_ONLY[name]}, not with {method}")
    if given.get("shot_selection") and not given.get("shots"):
        raise InvalidInput("--shot-selection needs --shots: how many examples of each label to show")
    return specify(TrainSpec, _OPTION_OF, **{"base_model": BASE_MODELS[method]} | given)


def _option(field: str) -> str:
    return _OPTION_OF.get(field, field.replace("_", "-"))


def _tell_worker(
    sender: MessageSender,
    training_id: str,
    warn: Callable[[str], None],
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    with accepted(training_id, warn, announce):
        sender.send(TRAIN, [JobMessage(job_id=training_id)])
