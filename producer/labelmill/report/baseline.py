"""The baseline for drift: a model's answers to texts like those it was trained for.

Answers are compared with answers: a model that gives a label too often does so everywhere, which is no drift. Only
where no answers are known do the labels of the validation split stand in for them, for a person to look at. Best scores
are compared with those at the same temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.states import EvaluationState
from labelmill.core.database.analysis_codec import load_analysis
from labelmill.core.database.tables import DatasetRow, EvaluationRow, TrainingRow
from labelmill.report.drift import AnswerCounts


@dataclass(frozen=True)
class Baseline:
    """Answers to a split, and their source in words: `the model's answers to the validation split`."""

    answers: AnswerCounts
    split: str
    source: str
    is_answers: bool  #: False: they are the split's own labels.


def baseline_of(
    connection: Connection, model: Mapping[str, Any], target: str, temperature: float = 1.0
) -> Baseline | None:
    """The answers of an evaluation on the model's own validation split, of its training, of an evaluation on the test
    split; else the labels of validation. None when there are none of these.

    Where the first does not tell the best scores at the batch's `temperature`, those of the second stand in.
    """
    validation = [
        candidate
        for candidate in (
            _evaluated(connection, model, target, "validation", temperature),
            _fitted(connection, model, target, temperature),
        )
        if candidate
    ]
    if not validation:
        return _evaluated(connection, model, target, "test", temperature) or _labels(connection, model, target)
    first = next((baseline for baseline in validation if baseline.answers.labels), validation[0])
    best_scores = next((baseline.answers.best_scores for baseline in validation if baseline.answers.best_scores), None)
    return replace(first, answers=replace(first.answers, best_scores=first.answers.best_scores or best_scores))


def _evaluated(
    connection: Connection, model: Mapping[str, Any], target: str, split: str, temperature: float
) -> Baseline | None:
    job = connection.execute(
        select(EvaluationRow.id, EvaluationRow.metrics, EvaluationRow.options)
        .where(
            EvaluationRow.model_no == model["no"],
            EvaluationRow.dataset_id == model["dataset_id"],
            EvaluationRow.split == split,
            EvaluationRow.state == EvaluationState.COMPLETED.value,
        )
        .order_by(EvaluationRow.no.desc())
        .limit(1)
    ).first()
    metrics = (job.metrics or {}).get(target) if job else None
    analysis = load_analysis(connection, job.id).get("targets", {}).get(target) if job else None
    if not job or not metrics or not analysis:
        return None
    is_at = ((job.options or {}).get("temperatures") or {}).get(target, 1.0)
    # the labels of rows that abstained from a multi-label target are not known
    labels = analysis.get("best_labels") or (None if metrics.get("abstained") else analysis.get("given"))
    scored = metrics.get("answered", 0) + metrics.get("abstained", 0)
    answers = AnswerCounts(scored, labels, analysis.get("histogram") if is_at == temperature else None)
    return _known(Baseline(answers, split, f"the model's answers to the {split} split ({job.id})", is_answers=True))


def _fitted(connection: Connection, model: Mapping[str, Any], target: str, temperature: float) -> Baseline | None:
    details = connection.scalar(select(TrainingRow.details).where(TrainingRow.id == model["training_id"])) or {}
    validation = details.get("targets", {}).get(target, {}).get("validation", {})
    best_scores = validation.get("best_scores")
    if temperature != 1.0:
        calibrated = (model["calibration"] or {}).get(target) or {}
        best_scores = calibrated.get("best_scores") if calibrated.get("temperature") == temperature else None
    answers = AnswerCounts(validation.get("rows") or sum(best_scores or ()), validation.get("given"), best_scores)
    return _known(Baseline(answers, "validation", "the model's answers to the validation split", is_answers=True))


def _known(baseline: Baseline) -> Baseline | None:
    return baseline if baseline.answers.rows and (baseline.answers.labels or baseline.answers.best_scores) else None


def _labels(connection: Connection, model: Mapping[str, Any], target: str) -> Baseline | None:
    dataset = connection.execute(
        select(DatasetRow.labels, DatasetRow.splits).where(DatasetRow.id == model["dataset_id"])
    ).first()
    counts = ((dataset.labels or {}).get(target) or {}).get("validation") if dataset else None
    if not dataset or not counts:
        return None
    rows = (dataset.splits or {}).get("validation") or sum(counts.values())
    source = "the labels of the validation split"
    return Baseline(AnswerCounts(rows, counts, None), "validation", source, is_answers=False)
