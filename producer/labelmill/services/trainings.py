"""Submitting a training, and approving its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import check_plain_name, shown
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.field_names import Notice, named
from labelmill.contracts.ids import Kind, kind_of, new_id
from labelmill.contracts.specs import BASE_MODELS, TrainSpec, specify
from labelmill.contracts.states import TrainingState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import DatasetRow, TrainingRow
from labelmill.core.jobs.transitions import create_job, move_job
from labelmill.core.money.prices import PriceList
from labelmill.core.remote_models import deprecation_of, meaning_of, read_list
from labelmill.services.context import ServiceContext
from labelmill.services.evaluations import ready_dataset
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.submissions.accepted import Accepted, Submitted, start
from labelmill.services.submissions.caps import check_max_cost, models_of_training
from labelmill.services.submissions.commits import accept_job
from labelmill.services.submissions.idempotency import accepted_before, check_identity, digest_of_request, keyed

METHODS = ("embedding", "factory", "prompt")
DEFAULT_METHOD = "embedding"

#: Fields that only some method has.
_ONLY = {
    "steps": "factory",
    "learning_rate": "factory",
    "wandb_project": "factory",
    "suffix": "factory",
    "target_weights": "factory",
    "descriptions": "prompt",
    "shots": "prompt",
    "shot_selection": "prompt",
    "texts_per_prompt": "prompt",
    "candidates": "prompt",
}


@dataclass(frozen=True)
class TrainRequest:
    """A training of a new version of model `name` on `dataset` (`name` or `name@version`).

    It waits for `approve` if it would cost more than `max_cost` (in the currency of its estimate), or anything at all
    where there is neither `max_cost` nor `yes`. Of `spec` those fields count that were set.
    """

    name: str
    dataset: str
    method: str = DEFAULT_METHOD
    max_cost: float | None = None
    yes: bool = False
    spec: TrainSpec = field(default_factory=TrainSpec)
    idempotency_key: str | None = None  #: The same key and request is the same training.
    metadata: Mapping[str, str] = field(default_factory=dict)  #: Noted with the training.

    @classmethod
    def of(
        cls,
        name: str,
        dataset: str,
        *,
        method: str = DEFAULT_METHOD,
        max_cost: float | None = None,
        yes: bool = False,
        mode: str | None = None,
        base_model: str | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        wandb_project: str | None = None,
        suffix: str | None = None,
        target_weights: Mapping[str, float] | None = None,
        descriptions: Mapping[str, str] | None = None,
        shots: int | None = None,
        shot_selection: str | None = None,
        texts_per_prompt: int | str | None = None,
        candidates: int | None = None,
        optimize: str | None = None,
        target_precision: Mapping[str, float] | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Self:
        """With the fields of the method that are given; None stands for the default. Raises InvalidInput."""
        options: dict[str, Any] = {
            "mode": mode,
            "base_model": base_model,
            "steps": steps,
            "learning_rate": learning_rate,
            "wandb_project": wandb_project,
            "suffix": suffix,
            "target_weights": dict(target_weights or {}),
            "descriptions": dict(descriptions or {}),
            "shots": shots,
            "shot_selection": shot_selection,
            "texts_per_prompt": texts_per_prompt,
            "candidates": candidates,
            "optimize": optimize,
            "target_precision": dict(target_precision or {}),
        }
        chosen = {name: value for name, value in options.items() if value is not None and value != {}}
        spec = specify(TrainSpec, **chosen)
        return cls(name, dataset, method, max_cost, yes, spec, idempotency_key, metadata or {})


def checked_spec(request: TrainRequest, prices: PriceList) -> TrainSpec:
    """The specification of the training, checked as far as it can be without the dataset. Raises InvalidInput."""
    check_plain_name("model", request.name)
    check_method(request.method)
    check_identity(request.idempotency_key, request.metadata)
    spec = _spec_of_method(request.method, request.spec)
    check_max_cost(request.max_cost, models_of_training(request.method, spec), prices)
    return spec


def checked_dataset(connection: Connection, request: TrainRequest, spec: TrainSpec) -> DatasetRow:
    """The dataset, on which this training is possible. Raises NotFound, InvalidInput."""
    dataset = ready_dataset(connection, request.dataset)
    if not (dataset.splits or {}).get("train") and (request.method != "prompt" or spec.shots):
        raise InvalidInput(f"dataset {shown(request.dataset)} has no rows to train on", field="dataset")
    check_choice(dataset, request.method)
    check_labels(spec, dataset.label_schema or [])
    check_thresholds(spec, dataset)
    if request.method == "prompt":
        check_precisions_of_prompts(spec, dataset.label_schema or [])
    return dataset


def accept_training(context: ServiceContext, request: TrainRequest) -> Accepted:
    """Write the job of a training. Raises NotFound, InvalidInput."""
    context.require_tables()
    spec, max_cost, key = checked_spec(request, context.prices), request.max_cost, request.idempotency_key
    job_id, digest = new_id(Kind.TRAINING), _digest_of(request)

    def write(connection: Connection) -> Accepted:
        if (before := accepted_before(connection, Kind.TRAINING, key, digest)) is not None:
            return before
        dataset_row = checked_dataset(connection, request, spec)
        listed = read_list(connection)
        deprecated = deprecation_of(meaning_of(spec.base_model, listed), listed)
        values: dict[str, Any] = {
            "name": request.name,
            "method": request.method,
            "dataset_id": dataset_row.id,
            "options": spec.model_dump(mode="json"),
            "max_cost": max_cost,
            # a limit applies even with `yes`: a person must approve a higher cost
            "approved": request.yes and max_cost is None,
        }
        values |= keyed(key, digest)
        create_job(connection, job_id, TrainingState.QUEUED, "submitted", metadata=request.metadata, **values)
        warnings = (Notice(f"the training asks {deprecated}"),) if deprecated is not None else ()
        return Accepted(job_id, Kind.TRAINING, TrainingState.QUEUED.value, warnings)

    return accept_job(context.engine, job_id, write)


def _digest_of(request: TrainRequest) -> str:
    return digest_of_request(
        Kind.TRAINING,
        name=request.name,
        dataset=request.dataset,
        method=request.method,
        max_cost=request.max_cost,
        yes=request.yes,
        spec=request.spec.model_dump(mode="json", exclude_defaults=True),
    )


def approve(context: ServiceContext, request: JobRequest) -> Submitted:
    """Let a training that waits for approval spend what Mistral estimates: it is `running` from here on.

    Raises NotFound, InvalidInput when it does not wait.
    """
    training_id = request.job_id
    if kind_of(training_id) is not Kind.TRAINING:
        raise NotFound(f"no training has the id {shown(training_id)}")
    with writing(context.engine) as connection:
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
            raise InvalidInput(f"{training_id} is {what}: it does not wait for approval", field="job_id")
    return start(context, Accepted(training_id, Kind.TRAINING, TrainingState.RUNNING.value))


def check_choice(dataset: DatasetRow, method: str) -> None:
    """Raise InvalidInput if all rows have the same label for a target: there is nothing to learn."""
    for target in dataset.label_schema or []:
        if len(target["labels"]) > 1:
            continue
        (label,) = target["labels"]
        if not (target["multi"] and _some_rows_lack(dataset, target["name"], label)):
            raise InvalidInput(
                f"every row of dataset {dataset.name}@{dataset.version} has the same label for {target['name']!r}, "
                f"{label!r}: there is nothing to learn. Prepare it with rows of other labels, or without this target",
                field="dataset",
            )
        if method == "factory":
            raise InvalidInput(
                f"{target['name']!r} has one label, {label!r}, and a classifier that Mistral fine-tunes needs two of "
                "every target: train by another method",
                field="method",
            )


def _some_rows_lack(dataset: DatasetRow, target: str, label: str) -> bool:
    counted = (dataset.labels or {}).get(target, {})
    with_it = sum(counts.get(label, 0) for counts in counted.values())
    return bool(counted) and with_it < sum((dataset.splits or {}).values())


def check_method(method: str) -> None:
    """Raise InvalidInput unless there is such a method."""
    if method not in METHODS:
        raise InvalidInput(f"{named('method')} is one of {', '.join(METHODS)}, not {shown(method)}")


def check_labels(spec: TrainSpec, schema: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidInput for an unknown target or label, whose weight or description would silently be lost."""
    targets = {target["name"] for target in schema}
    for name in spec.target_weights:
        if name not in targets:
            raise InvalidInput(
                f"{named('target_weights')} names {shown(name)}; the dataset's targets are {', '.join(sorted(targets))}"
            )
    known_names = {label for target in schema for label in target["labels"]}
    known_names |= {f"{target['name']}.{label}" for target in schema for label in target["labels"]}
    for name in spec.descriptions:
        if name not in known_names:
            raise InvalidInput(f"{shown(name)} is described, but the dataset has no such label", field="descriptions")


def check_precisions_of_prompts(spec: TrainSpec, schema: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidInput for a precision that is asked for of a multi-label target: a prompt scores its labels 1 and
    0."""
    for target in schema:
        own = [name for name in spec.target_precision if name in ("*", target["name"]) or _is_label_of(name, target)]
        if target["multi"] and own:
            raise InvalidInput(
                f"{named('target_precision')} certifies scores, and prompts score the labels of the multi-label target "
                f"{target['name']!r} 1 and 0: name single-label targets"
            )


def _is_label_of(name: str, target: Mapping[str, Any]) -> bool:
    return any(name == f"{target['name']}.{label}" for label in target["labels"])


def check_thresholds(spec: TrainSpec, dataset: DatasetRow) -> None:
    """Raise InvalidInput for options of thresholds without a matching target, label or row in the dataset."""
    schema = dataset.label_schema or []
    if "optimize" in spec.model_fields_set and not any(target["multi"] for target in schema):
        raise InvalidInput(f"{named('optimize')} is for multi-label targets, and the dataset has none")
    known_names = {"*"} | {target["name"] for target in schema}
    known_names |= {f"{target['name']}.{label}" for target in schema for label in target["labels"]}
    for name in spec.target_precision:
        if name not in known_names:
            targets = ", ".join(sorted(target["name"] for target in schema))
            raise InvalidInput(
                f"{named('target_precision')} names {shown(name)}, which is not a target or TARGET.LABEL of the "
                f"dataset; its targets are {targets}"
            )
    if spec.target_precision and not (dataset.splits or {}).get("validation"):
        raise InvalidInput(
            f"{named('target_precision')} is certified on rows of the validation split, and dataset "
            f"{dataset.name}@{dataset.version} has none: prepare it with some"
        )


def _spec_of_method(method: str, spec: TrainSpec) -> TrainSpec:
    """The fields that were set, and the method's default model if none was."""
    for name in TrainSpec.model_fields:  # in the order of their definition
        if name == "optimize" and name in spec.model_fields_set and method == "prompt":
            raise InvalidInput(f"{named(name)} is for multi-label targets, and prompts score their labels 1 and 0")
        if name in spec.model_fields_set and _ONLY.get(name, method) != method:
            raise InvalidInput(f"{named(name)} goes with {named('method', _ONLY[name])}, not with {method}")
    if "shot_selection" in spec.model_fields_set and not spec.shots:
        raise InvalidInput(f"{named('shot_selection')} needs {named('shots')}: how many examples of each label to show")
    if "base_model" in spec.model_fields_set:
        return spec
    return spec.model_copy(update={"base_model": BASE_MODELS[method]})
