"""Listing models, and everything about one version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from labelmill.contracts.calibration import temperatures_of
from labelmill.contracts.documents.models import (
    HistoryLine,
    Measured,
    ModelDocument,
    ModelEntry,
    ModelFacts,
    OfBatches,
    OfDataset,
    OfEvaluation,
    OfTraining,
)
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.states import EvaluationState
from labelmill.core.database.tables import (
    BatchRow,
    DatasetRow,
    EvaluationRow,
    EventRow,
    ModelAliasRow,
    ModelRow,
    PromotionRow,
    TrainingRow,
)
from labelmill.core.remote_models import Listed, read_list, warnings_of
from labelmill.services.models.resolving import ARCHIVED, READY, find_version, is_raw, ref_of, resolve_model

_LATEST = 20


def list_models(connection: Connection, *, everything: bool = False) -> list[ModelEntry]:
    """Models by name and version; archived ones too with `everything`. Deleted ones are never listed."""
    shown = [READY, ARCHIVED] if everything else [READY]
    statement = select(ModelRow.__table__).where(ModelRow.state.in_(shown)).order_by(ModelRow.name, ModelRow.version)
    rows = [ModelRow(**row) for row in connection.execute(statement).mappings()]
    aliases: dict[int, list[str]] = defaultdict(list)
    for alias, number in connection.execute(select(ModelAliasRow.alias, ModelAliasRow.model_no)):
        aliases[number].append(alias)
    measured = _latest_evaluations(connection)
    listed = read_list(connection)
    return [_entry(row, sorted(aliases[row.no]), measured.get(row.no), listed) for row in rows]


def lineage(connection: Connection, ref: str) -> ModelDocument:
    """Everything about one version: the dataset, its files, the training and its job at Mistral, evaluations, batches.

    An archived version is found by its number. Raises NotFound, InvalidInput.
    """
    by_number = is_raw(ref) or "@" in ref
    row = find_version(connection, ref) if by_number else resolve_model(connection, ref)
    aliases = connection.scalars(
        select(ModelAliasRow.alias).where(ModelAliasRow.model_no == row.no).order_by(ModelAliasRow.alias)
    ).all()
    measured = _latest_evaluations(connection, row.no).get(row.no)
    facts = _facts(row, list(aliases), measured, read_list(connection))
    promotions = connection.execute(
        select(PromotionRow.at, PromotionRow.undone).where(PromotionRow.model_no == row.no).order_by(PromotionRow.no)
    )
    return {
        **facts,
        "training": _training(connection, row),
        "dataset": _dataset(connection, row),
        "dataset_fingerprint": row.dataset_fingerprint,
        "created_at": row.created_at.isoformat(),
        "labels": {target["name"]: target["labels"] for target in row.label_schema or []},
        "thresholds": row.thresholds,
        "temperatures": temperatures_of(row.calibration),
        "calibration": row.calibration,
        "evaluations": _evaluations(connection, row.no),
        "batches": _batches(connection, row.no),
        "promotions": [{"at": at.isoformat(), "undone": undone} for at, undone in promotions],
        "at_mistral": _history(connection, row.no),
    }


def _entry(row: ModelRow, aliases: list[str], measured: Measured | None, listed: Sequence[Listed]) -> ModelEntry:
    return {
        **_facts(row, aliases, measured, listed),
        "training": row.training_id,
        "dataset": row.dataset_id,
        "dataset_fingerprint": row.dataset_fingerprint,
        "created_at": row.created_at.isoformat(),
    }


def _facts(row: ModelRow, aliases: list[str], measured: Measured | None, listed: Sequence[Listed]) -> ModelFacts:
    schema = row.label_schema or []
    return {
        "model": ref_of(row),
        "name": row.name,
        "version": row.version,
        "promoted": row.promoted,
        "aliases": aliases,
        "state": row.state,
        "method": row.method,
        "remote_model": row.remote_model,
        "remote_state": row.remote_state,
        "remote_wish": row.remote_wish,
        "remote_error": row.remote_error,
        "targets": {target["name"]: len(target["labels"]) for target in schema},
        "multi_label": [target["name"] for target in schema if target.get("multi")],
        "evaluated": measured,
        "note": row.note,
        "warnings": warnings_of(row, listed),
    }


def _latest_evaluations(connection: Connection, model_no: int | None = None) -> dict[int, Measured]:
    """For each model its latest evaluation: the dataset and split, and each target's accuracy, macro and micro F1."""
    latest = (
        select(func.max(EvaluationRow.no))
        .where(EvaluationRow.state == EvaluationState.COMPLETED.value)
        .group_by(EvaluationRow.model_no)
    )
    if model_no is not None:
        latest = latest.where(EvaluationRow.model_no == model_no)
    statement = select(
        EvaluationRow.model_no, EvaluationRow.id, EvaluationRow.dataset_ref, EvaluationRow.split, EvaluationRow.metrics
    ).where(EvaluationRow.no.in_(latest))
    return {
        number: {
            "id": job_id,
            "dataset": dataset,
            "split": split,
            "targets": {
                name: {key: metrics_of_target.get(key) for key in ("accuracy", "macro_f1", "micro_f1")}
                for name, metrics_of_target in (metrics or {}).items()
            },
        }
        for number, job_id, dataset, split, metrics in connection.execute(statement)
    }


def _dataset(connection: Connection, row: ModelRow) -> OfDataset | None:
    dataset = connection.execute(
        select(DatasetRow.id, DatasetRow.name, DatasetRow.version, DatasetRow.files, DatasetRow.splits).where(
            DatasetRow.id == row.dataset_id
        )
    ).first()
    if dataset is None:
        return None
    return {
        "id": dataset.id,
        "dataset": f"{dataset.name}@{dataset.version}",
        "fingerprint": row.dataset_fingerprint,
        "files": dataset.files,
        "splits": dataset.splits,
    }


def _training(connection: Connection, row: ModelRow) -> OfTraining | None:
    columns = (
        TrainingRow.id,
        TrainingRow.state,
        TrainingRow.method,
        TrainingRow.remote_files,
        TrainingRow.remote_job,
        TrainingRow.cost,
    )
    training = connection.execute(select(*columns).where(TrainingRow.id == row.training_id)).mappings().first()
    if training is None:
        return None
    return {
        "id": training["id"],
        "state": training["state"],
        "method": training["method"],
        "remote_files": training["remote_files"],
        "remote_job": training["remote_job"],
        "cost": training["cost"],
    }


def _evaluations(connection: Connection, model_no: int) -> list[OfEvaluation]:
    evaluations = connection.execute(
        select(
            EvaluationRow.id,
            EvaluationRow.state,
            EvaluationRow.dataset_ref,
            EvaluationRow.split,
            EvaluationRow.created_at,
        )
        .where(EvaluationRow.model_no == model_no)
        .order_by(EvaluationRow.no.desc())
        .limit(_LATEST)
    )
    return [
        {
            "id": evaluation.id,
            "state": evaluation.state,
            "dataset": evaluation.dataset_ref,
            "split": evaluation.split,
            "created_at": evaluation.created_at.isoformat(),
        }
        for evaluation in evaluations
    ]


def _batches(connection: Connection, model_no: int) -> OfBatches:
    of_model = BatchRow.model_no == model_no
    batches = connection.execute(
        select(BatchRow.id, BatchRow.state, BatchRow.rows, BatchRow.created_at)
        .where(of_model)
        .order_by(BatchRow.no.desc())
        .limit(_LATEST)
    )
    return {
        "count": connection.scalar(select(func.count()).select_from(BatchRow).where(of_model)) or 0,
        "latest": [
            {"id": batch.id, "state": batch.state, "rows": batch.rows, "created_at": batch.created_at.isoformat()}
            for batch in batches
        ],
    }


def _history(connection: Connection, model_no: int) -> list[HistoryLine]:
    lines = connection.execute(
        select(EventRow.at, EventRow.message).where(EventRow.job_id == model_work_id(model_no)).order_by(EventRow.no)
    )
    return [{"at": at.isoformat(), "message": message} for at, message in lines]
