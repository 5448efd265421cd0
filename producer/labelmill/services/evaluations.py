"""Submitting an evaluation, and finding an equal one that exists already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import MAX_NAME_CHARS, check_text, plain, shown, version_of
from labelmill.contracts.calibration import temperatures_of
from labelmill.contracts.errors import CapReached, InvalidInput, NotFound
from labelmill.contracts.field_names import Notice, named
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.job_kinds import DATASET
from labelmill.contracts.moderation import MODERATION, MODERATION_TARGET
from labelmill.contracts.near_matches import did_you_mean
from labelmill.contracts.specs import INNER_MODES, EvaluateSpec
from labelmill.contracts.states import DatasetState, EvaluationState
from labelmill.core.database import writing
from labelmill.core.database.tables import AnalysisRow, DatasetRow, EvaluationRow, ModelRow
from labelmill.core.jobs import events
from labelmill.core.jobs.tables import is_open
from labelmill.core.jobs.transitions import create_job
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.retrying import continue_evaluation
from labelmill.services.models import asked_model, ref_of, resolve_model
from labelmill.services.submissions.accepted import Accepted
from labelmill.services.submissions.caps import check_max_cost, models_asked
from labelmill.services.submissions.commits import accept_job
from labelmill.services.submissions.idempotency import accepted_before, check_identity, digest_of_request, keyed


@dataclass(frozen=True)
class EvaluateRequest:
    """An evaluation of `model` on a split of `dataset` (`name` or `name@version`).

    `calibrate`: fit a temperature for each target on the validation split and keep it with the model version.
    """

    model: str
    dataset: str
    split: str = "test"
    calibrate: bool = False
    mode: str = "realtime"  #: Or `batch`: its rows are classified by Mistral's Batch API.
    idempotency_key: str | None = None  #: The same key and request is the same evaluation.
    metadata: Mapping[str, str] = field(default_factory=dict)  #: Noted with the evaluation.
    max_cost: float | None = None  #: USD; the evaluation fails before it may cost more.
    compared: tuple[str, ...] = ()  #: The models of the comparison that it belongs to, if that has a key.

    @property
    def digest(self) -> str:
        """Of what was asked for, which a key stands for."""
        asked: dict[str, Any] = {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "calibrate": self.calibrate,
        }
        if self.mode != INNER_MODES[0]:
            asked["mode"] = self.mode
        if self.max_cost is not None:
            asked["max_cost"] = self.max_cost
        if self.compared:
            asked["compared"] = self.compared
        return digest_of_request(Kind.EVALUATION, **asked)


def accept_evaluation(context: ServiceContext, request: EvaluateRequest) -> Accepted:
    """Write the job of an evaluation. Raises NotFound, InvalidInput."""
    context.require_tables()
    key = request.idempotency_key
    check_identity(key, request.metadata)
    if request.mode not in INNER_MODES:
        raise InvalidInput(f"{named('mode')} is one of {', '.join(INNER_MODES)}, not {shown(request.mode)}")
    job_id, digest = new_id(Kind.EVALUATION), request.digest

    def write(connection: Connection) -> Accepted:
        if (before := accepted_before(connection, Kind.EVALUATION, key, digest)) is not None:
            return before
        asked = asked_model(connection, request.model)
        model_row = asked.row
        dataset_row = ready_dataset(connection, request.dataset)
        check_split(dataset_row, request.split)
        multi = check_targets(model_row, dataset_row)
        check_max_cost(request.max_cost, models_asked(model_row), context.prices)
        warnings = asked.warnings
        if request.calibrate:
            check_split(dataset_row, "validation")
            if request.split == "validation":
                raise InvalidInput(
                    f"{named('calibrate')} fits on the validation split: evaluate another one, such as test"
                )
            if model_row.method == "prompt" and not (model_row.recipe or {}).get("logprobs"):
                scores = f"{ref_of(model_row)} scores 1 and 0, as prompts do without log-probabilities"
                warnings += (Notice(f"{scores}: a temperature cannot change that"),)
        spec = EvaluateSpec(
            mode="batch" if request.mode == "batch" else "realtime",
            calibrate=request.calibrate,
            thresholds=model_row.thresholds,
            temperatures=temperatures_of(model_row.calibration),
            multi=multi,
        )
        values = {
            "model_no": model_row.no,
            "model_ref": request.model,
            "dataset_id": dataset_row.id,
            "dataset_ref": f"{dataset_row.name}@{dataset_row.version}",
            "split": request.split,
            "options": spec.model_dump(mode="json"),
            "max_cost": request.max_cost,
            **keyed(key, digest),
        }
        create_job(connection, job_id, EvaluationState.QUEUED, "submitted", metadata=request.metadata, **values)
        if asked.pinned is not None:
            events.note(connection, job_id, asked.pinned)
        return Accepted(job_id, Kind.EVALUATION, EvaluationState.QUEUED.value, warnings)

    return accept_job(context.engine, job_id, write)


@dataclass(frozen=True)
class CompareRequest:
    """Models to be measured on the same rows. `max_cost` and `metadata` are those of each evaluation that is begun; one
    that stopped at its cap goes on under `max_cost`."""

    models: Sequence[str]
    dataset: str
    split: str = "test"
    idempotency_key: str | None = None  #: The same key and request are the same evaluations.
    metadata: Mapping[str, str] = field(default_factory=dict)
    max_cost: float | None = None

    @property
    def evaluations(self) -> tuple[EvaluateRequest, ...]:
        """One of each model. The first has the comparison's key, the others have keys made of it."""
        key = self.idempotency_key
        compared = () if key is None else tuple(self.models)
        return tuple(
            EvaluateRequest(
                model,
                self.dataset,
                self.split,
                idempotency_key=_key_of_part(key, number),
                metadata=self.metadata,
                max_cost=self.max_cost,
                compared=compared,
            )
            for number, model in enumerate(self.models)
        )


def _key_of_part(key: str | None, number: int) -> str | None:
    if key is None or not number:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"compare-{digest}-{number}"


@dataclass(frozen=True)
class Comparable:
    """The evaluations of the models, in their order; those that were `accepted` now must still be started."""

    evaluations: tuple[str, ...]
    accepted: tuple[Accepted, ...]


def accept_comparison(context: ServiceContext, request: CompareRequest) -> Comparable:
    """One evaluation of each model: an existing one, one that stopped at its cap and goes on, or a new one. When they
    have ended, `services.comparison` compares them. Raises InvalidInput, NotFound, KeyTaken, before anything is
    written."""
    context.require_tables()
    models, dataset, split = request.models, request.dataset, request.split
    check_identity(request.idempotency_key, request.metadata)
    existing: list[str | None] = []
    with writing(context.engine) as connection:
        # keys first: a name may mean another version than when the same was asked for before
        for one in request.evaluations:
            before = accepted_before(connection, Kind.EVALUATION, one.idempotency_key, one.digest)
            existing.append(before.id if before is not None else None)
        versions = {}
        for model, keyed_id in zip(models, existing, strict=True):
            if keyed_id is None:
                version = check_evaluation(connection, model, dataset, split)
                check_max_cost(request.max_cost, models_asked(version), context.prices)
                versions[version.no] = version
        if len(versions) < 2 and not any(existing):
            given = "no models are given" if not models else f"{' and '.join(models)} are the same version"
            raise InvalidInput(f"{given}: name two models or more", field="models")
    ids: dict[str, None] = {}
    accepted: list[Accepted] = []
    for one, keyed_id in zip(request.evaluations, existing, strict=True):
        ids[keyed_id or _existing_or_accepted(context, one, accepted)] = None
    return Comparable(tuple(ids), tuple(accepted))


def _existing_or_accepted(context: ServiceContext, request: EvaluateRequest, accepted: list[Accepted]) -> str:
    with writing(context.engine) as connection:
        job_id = find_evaluation(connection, request.model, request.dataset, request.split)
        if job_id is not None:
            return job_id
        stopped_id = find_evaluation(connection, request.model, request.dataset, request.split, stopped=True)
        if stopped_id is not None:
            accepted.append(continue_evaluation(connection, stopped_id, request.max_cost))
    if stopped_id is None:
        accepted.append(accept_evaluation(context, request))
    return accepted[-1].id


def find_evaluation(
    connection: Connection, model: str, dataset: str, split: str, *, stopped: bool = False
) -> str | None:
    """A completed or running evaluation of the same model version, with its current thresholds and temperatures, on the
    same rows; `stopped`: one that stopped at its cap. Raises NotFound, InvalidInput."""
    model_row, dataset_row = resolve_model(connection, model), ready_dataset(connection, dataset)
    has_analysis = select(AnalysisRow.job_id).where(AnalysisRow.job_id == EvaluationRow.id).exists()
    usable = is_open(EvaluationRow) | ((EvaluationRow.state == EvaluationState.COMPLETED.value) & has_analysis)
    at_cap = (EvaluationRow.state == EvaluationState.FAILED.value) & (EvaluationRow.error_code == CapReached.code)
    statement = (
        select(EvaluationRow.id, EvaluationRow.options)
        .join(DatasetRow, DatasetRow.id == EvaluationRow.dataset_id)
        .where(EvaluationRow.model_no == model_row.no, EvaluationRow.split == split)
        .where(DatasetRow.fingerprint == dataset_row.fingerprint)
        .where(at_cap if stopped else usable)
        .order_by(EvaluationRow.no.desc())
    )
    for job_id, options in connection.execute(statement):
        spec = options or {}
        current = (model_row.thresholds or {}, temperatures_of(model_row.calibration))
        if (spec.get("thresholds") or {}, spec.get("temperatures") or {}) == current:
            return str(job_id)
    return None


def is_of_training_rows(document: Mapping[str, Any]) -> bool:
    """Whether an evaluation used rows that its model was trained on, so that its figures say nothing about others."""
    summary = document["summary"] or {}
    seen_rows, rows = summary.get("seen_in_training"), summary.get("rows") or 0
    return bool(document["split"] == "train" if seen_rows is None else 2 * seen_rows > rows)


def check_evaluation(connection: Connection, model: str, dataset: str, split: str) -> ModelRow:
    """The version that `model` names, after checking that it can be measured. Raises NotFound,
    InvalidInput."""
    model_row, dataset_row = resolve_model(connection, model), ready_dataset(connection, dataset)
    check_split(dataset_row, split)
    check_targets(model_row, dataset_row)
    return model_row


def check_split(dataset: DatasetRow, split: str) -> None:
    """Raise InvalidInput unless the dataset has rows in that split."""
    splits = [name for name, rows in (dataset.splits or {}).items() if rows]
    if split not in splits:
        raise InvalidInput(
            f"dataset {dataset.name}@{dataset.version} has no rows in a split {shown(split)}; "
            + (f"it has {', '.join(splits)}" if splits else "it has none at all"),
            field="split",
        )


def check_targets(model: ModelRow, dataset: DatasetRow) -> tuple[str, ...]:
    """Raise InvalidInput unless the dataset has labels for some target of the model, of its shape.

    Returns the dataset's multi-label targets for a model whose own are not known yet: it learns them from its first
    answer.
    """
    labelled = {target["name"]: bool(target.get("multi")) for target in dataset.label_schema or []}
    if model.method == MODERATION and MODERATION_TARGET not in labelled:
        raise InvalidInput(
            f"dataset {dataset.name!r} has labels for {', '.join(labelled) or 'nothing'}, {ref_of(model)} answers "
            f"{MODERATION_TARGET}: prepare it with {named('targets', f'{MODERATION_TARGET}=COLUMN:multi')}",
            field="dataset",
        )
    if model.label_schema is None:
        return tuple(name for name, multi in labelled.items() if multi)
    answered = {target["name"]: bool(target.get("multi")) for target in model.label_schema}
    if not answered.keys() & labelled.keys():
        raise InvalidInput(
            f"dataset {dataset.name!r} has labels for {', '.join(labelled) or 'nothing'}, {ref_of(model)} answers "
            f"{', '.join(answered)}: prepare it with {named('targets', f'{next(iter(answered))}=COLUMN')}",
            field="dataset",
        )
    for name in answered.keys() & labelled.keys():
        if labelled[name] and not answered[name]:
            raise InvalidInput(
                f"{name!r} is multi-label in dataset {dataset.name!r}, and {ref_of(model)} gives one label",
                field="dataset",
            )
    return ()


def ready_dataset(connection: Connection, ref: str) -> DatasetRow:
    """The dataset `name@version`, or the latest version of `name`. Raises NotFound."""
    check_text("the dataset", ref, 2 * MAX_NAME_CHARS, field="dataset")
    name, _, version = ref.partition("@")
    statement = (
        select(DatasetRow.__table__)
        .where(DatasetRow.name == name, DatasetRow.state == DatasetState.READY.value, DatasetRow.repeats.is_(None))
        .order_by(DatasetRow.version.desc())
    )
    if version:
        if not (version.isascii() and version.isdigit()):
            raise InvalidInput(f"{shown(ref)} names no version: write {plain(name)}@1", field="dataset")
        statement = statement.where(DatasetRow.version == (version_of(version) or 0))
    row = connection.execute(statement.limit(1)).mappings().first()
    if row is None:
        raise _no_dataset(connection, name, ref)
    return DatasetRow(**row)


def _no_dataset(connection: Connection, name: str, ref: str) -> NotFound:
    """The error for a dataset that is not ready: it may be in preparation or have failed, or the name is misspelt."""
    latest = connection.execute(
        select(DatasetRow.id, DatasetRow.state)
        .where(DatasetRow.name == name, DatasetRow.state != DatasetState.READY.value)
        .order_by(DatasetRow.no.desc())
        .limit(1)
    ).first()
    if latest is not None and latest.state in DATASET.open:
        return NotFound(f"dataset {shown(ref)} is not ready yet, it is {latest.state}: labelmill watch {latest.id}")
    names = connection.scalars(select(DatasetRow.name).where(DatasetRow.state == DatasetState.READY.value).distinct())
    if (hint := did_you_mean(name, names)) or latest is None:
        return NotFound(f"no dataset {shown(ref)} is ready{hint or '; `labelmill datasets` lists them'}")
    return NotFound(f"no dataset {shown(ref)} is ready: {latest.id} {latest.state}")
