"""What a model answered to texts like those it was made for: what drift is measured against.

Answers are compared with answers: a model that gives a label too often does so everywhere, which is no drift. Only
where no answers are known do the labels of the validation split stand in for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.states import EvaluationState
from labelmill.core.database.analysis_codec import load_analysis
from labelmill.core.database.tables import DatasetRow, EvaluationRow, TrainingRow


@dataclass(frozen=True)
class Baseline:
    """Rows by label, and where they are from: `the model's answers to the validation split`."""

    counts: Mapping[str, int]
    split: str
    source: str
    is_answers: bool


def baseline_of(connection: Connection, model: Mapping[str, Any], target: str) -> Baseline | None:
    """The answers of an evaluation on the model's own validation split, of its training, of an evaluation on the test
    split; else the labels of validation. None when there are none of these."""
    return (
        _evaluated(connection, model, target, "validation")
        or _fitted(connection, model, target)
        or _evaluated(connection, model, target, "test")
        or _labels(connection, model, target)
    )


def _evaluated(connection: Connection, model: Mapping[str, Any], target: str, split: str) -> Baseline | None:
    job_id = connection.scalar(
        select(EvaluationRow.id)
        .where(
            EvaluationRow.model_no == model["no"],
            EvaluationRow.dataset_id == model["dataset_id"],
            EvaluationRow.split == split,
            EvaluationRow.state == EvaluationState.COMPLETED.value,
        )
        .order_by(EvaluationRow.no.desc())
        .limit(1)
    )
    given = load_analysis(connection, job_id).get("targets", {}).get(target, {}).get("given") if job_id else None
    source = f"the model's answers to the {split} split ({job_id})"
    return Baseline(given, split, source, is_answers=True) if given else None


def _fitted(connection: Connection, model: Mapping[str, Any], target: str) -> Baseline | None:
    details = connection.scalar(select(TrainingRow.details).where(TrainingRow.id == model["training_id"])) or {}
    given = details.get("targets", {}).get(target, {}).get("validation", {}).get("given")
    source = "the model's answers to the validation split"
    return Baseline(given, "validation", source, is_answers=True) if given else None


def _labels(connection: Connection, model: Mapping[str, Any], target: str) -> Baseline | None:
    labels = connection.scalar(select(DatasetRow.labels).where(DatasetRow.id == model["dataset_id"])) or {}
    counts = labels.get(target, {}).get("validation")
    return Baseline(counts, "validation", "the labels of the validation split", is_answers=False) if counts else None
