"""Submitting an evaluation: a worker classifies the split and compares."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.bounds import MAX_NAME_CHARS, check_text, plain, shown, version_of
from labelmill.contracts.calibration import temperatures_of
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.job_kinds import DATASET
from labelmill.contracts.messages import EVALUATE, JobMessage
from labelmill.contracts.near_matches import did_you_mean
from labelmill.contracts.specs import EvaluateSpec
from labelmill.contracts.states import DatasetState, EvaluationState
from labelmill.core.database import writing
from labelmill.core.database.tables import AnalysisRow, DatasetRow, EvaluationRow, ModelRow
from labelmill.core.jobs.tables import is_open
from labelmill.core.jobs.transitions import create_job
from labelmill.core.queue.sender import MessageSender, accepted
from labelmill.services.models import ref_of, resolve_model


def submit_evaluation(
    engine: Engine,
    sender: MessageSender,
    *,
    model: str,
    dataset: str,
    split: str = "test",
    calibrate: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
) -> str:
    """Submit an evaluation of `model` on a split of `dataset` (`name` or `name@version`). Returns its id.

    `calibrate`: fit a temperature for each target on the validation split and keep it with the model version.
    Raises NotFound, InvalidInput.
    """
    job_id = new_id(Kind.EVALUATION)
    with writing(engine) as connection:
        model_row = resolve_model(connection, model)
        dataset_row = ready_dataset(connection, dataset)
        check_split(dataset_row, split)
        multi = check_targets(model_row, dataset_row)
        if calibrate:
            check_split(dataset_row, "validation")
            if split == "validation":
                raise InvalidInput("--calibrate fits on the validation split: evaluate another one, such as test")
            if model_row.method == "prompt":
                warn(
                    f"{ref_of(model_row)} scores 1 and 0, as prompts do: there is nothing that a temperature could mend"
                )
        spec = EvaluateSpec(
            calibrate=calibrate,
            thresholds=model_row.thresholds,
            temperatures=temperatures_of(model_row.calibration),
            multi=multi,
        )
        values = {
            "model_no": model_row.no,
            "model_ref": model,
            "dataset_id": dataset_row.id,
            "dataset_ref": f"{dataset_row.name}@{dataset_row.version}",
            "split": split,
            "options": spec.model_dump(mode="json"),
        }
        create_job(connection, job_id, EvaluationState.QUEUED, "submitted", **values)
    with accepted(job_id, warn, announce):
        sender.send(EVALUATE, [JobMessage(job_id=job_id)])
    return job_id


def find_evaluation(connection: Connection, model: str, dataset: str, split: str) -> str | None:
    """An evaluation of the same model version, with the thresholds and temperatures it has now, on the same rows: one
    that is done or under way. Raises NotFound, InvalidInput."""
    model_row, dataset_row = resolve_model(connection, model), ready_dataset(connection, dataset)
    has_analysis = select(AnalysisRow.job_id).where(AnalysisRow.job_id == EvaluationRow.id).exists()
    statement = (
        select(EvaluationRow.id, EvaluationRow.options)
        .join(DatasetRow, DatasetRow.id == EvaluationRow.dataset_id)
        .where(EvaluationRow.model_no == model_row.no, EvaluationRow.split == split)
        .where(DatasetRow.fingerprint == dataset_row.fingerprint)
        .where(is_open(EvaluationRow) | ((EvaluationRow.state == EvaluationState.COMPLETED.value) & has_analysis))
        .order_by(EvaluationRow.no.desc())
    )
    for job_id, options in connection.execute(statement):
        spec = options or {}
        asked = (model_row.thresholds or {}, temperatures_of(model_row.calibration))
        if (spec.get("thresholds") or {}, spec.get("temperatures") or {}) == asked:
            return str(job_id)
    return None


def check_evaluation(connection: Connection, model: str, dataset: str, split: str) -> int:
    """The key of the version that `model` names, once it is known that it can be measured. Raises NotFound,
    InvalidInput."""
    model_row, dataset_row = resolve_model(connection, model), ready_dataset(connection, dataset)
    check_split(dataset_row, split)
    check_targets(model_row, dataset_row)
    return model_row.no


def check_split(dataset: DatasetRow, split: str) -> None:
    """Raise InvalidInput unless the dataset has rows in that split."""
    there = [name for name, rows in (dataset.splits or {}).items() if rows]
    if split not in there:
        raise InvalidInput(
            f"dataset {dataset.name}@{dataset.version} has no rows in a split {shown(split)}; "
            + (f"it has {', '.join(there)}" if there else "it has none at all")
        )


def check_targets(model: ModelRow, dataset: DatasetRow) -> tuple[str, ...]:
    """Raise InvalidInput unless the dataset has labels for some target of the model, of its shape.

    Returns the dataset's multi-label targets for a model whose own are not known yet: it learns them from its first
    answer.
    """
    asked = {target["name"]: bool(target.get("multi")) for target in dataset.label_schema or []}
    if model.label_schema is None:
        return tuple(name for name, multi in asked.items() if multi)
    answered = {target["name"]: bool(target.get("multi")) for target in model.label_schema}
    if not answered.keys() & asked.keys():
        raise InvalidInput(
            f"dataset {dataset.name!r} has labels for {', '.join(asked) or 'nothing'}, {ref_of(model)} answers "
            f"{', '.join(answered)}: prepare it with --target {next(iter(answered))}=COLUMN"
        )
    for name in answered.keys() & asked.keys():
        if asked[name] and not answered[name]:
            raise InvalidInput(
                f"{name!r} is multi-label in dataset {dataset.name!r}, and {ref_of(model)} gives one label"
            )
    return ()


def ready_dataset(connection: Connection, ref: str) -> DatasetRow:
    """The dataset `name@version`, or the latest version of `name`. Raises NotFound."""
    check_text("the dataset", ref, 2 * MAX_NAME_CHARS)
    name, _, version = ref.partition("@")
    statement = (
        select(DatasetRow.__table__)
        .where(DatasetRow.name == name, DatasetRow.state == DatasetState.READY.value, DatasetRow.repeats.is_(None))
        .order_by(DatasetRow.version.desc())
    )
    if version:
        if not (version.isascii() and version.isdigit()):
            raise InvalidInput(f"{shown(ref)} names no version: write {plain(name)}@1")
        statement = statement.where(DatasetRow.version == (version_of(version) or 0))
    row = connection.execute(statement.limit(1)).mappings().first()
    if row is None:
        raise _no_dataset(connection, name, ref)
    return DatasetRow(**row)


def _no_dataset(connection: Connection, name: str, ref: str) -> NotFound:
    """What to say of a dataset that is not ready: it may be under way or have failed, or another name was meant."""
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
