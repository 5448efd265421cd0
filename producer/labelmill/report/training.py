"""The report of a training."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.core.database.analysis_codec import load_analysis
from labelmill.core.database.tables import EvaluationRow, ModelRow, TrainingRow
from labelmill.report import dataset
from labelmill.report.parts import Curves, Grid, Heading, Note, Part, facts, money
from labelmill.report.suspects import suspects_of
from labelmill.services.jobs.documents import status_document

_CLEARLY_MORE = 1.05  #: Times the micro F1 of every label: thresholds were tuned on the same rows.


def parts_of(connection: Connection, document: dict[str, Any]) -> list[Part]:
    """The contents of a training's page."""
    source = status_document(connection, document["dataset"])
    parts: list[Part] = [
        facts(
            {
                "model": document["model"] or document["name"],
                "method": document["method"],
                "Mistral's model": document["remote_model"],
                "Mistral's job": document["remote_job"],
                "its status": document["remote_status"],
                "estimate": money(document["estimate"]),
                "cost": money(document["cost"]),
                "limit": money({"amount": document["max_cost"], "currency": "USD"}),
                **dataset.facts_of(source),
            }
        ),
        *_losses(document),
        *_left_out(document["details"] or {}),
        *_candidates(document["details"] or {}),
        *_texts_per_prompt(document["details"] or {}),
        *_tuning(document["details"] or {}),
        *_suspects(connection, document),
        *_evaluations(connection, document["id"]),
        *dataset.contents(connection, source),
    ]
    return parts


def _losses(document: dict[str, Any]) -> list[Part]:
    checkpoints = document["checkpoints"]
    names = {"train_loss": "train", "valid_loss": "validation"}
    series = {
        title: [(checkpoint["step"], checkpoint[key]) for checkpoint in checkpoints if checkpoint.get(key) is not None]
        for key, title in names.items()
    }
    drawn = {title: points for title, points in series.items() if points}
    return [Heading("Loss"), Curves("loss", "Loss by step", drawn, ("step", "loss"))] if drawn else []


def _left_out(details: dict[str, Any]) -> list[Part]:
    """Rows that nothing was learnt from."""
    found = details.get("left_out")
    if not found or not found["rows"]:
        return []
    rows = f"{found['rows']:,} {'row' if found['rows'] == 1 else 'rows'}"
    return [Note(f"{rows} of the dataset took no part: {found['reason']}.", "warning")]


def _candidates(details: dict[str, Any]) -> list[Part]:
    """How often the right labels are among those that a prompt names."""
    found = details.get("candidates")
    if found is None:
        return []
    rows = [(name, found["rows"][name], share) for name, share in found["found"].items()]
    note = (
        f"A prompt names the {found['count']:,} labels of each target that are nearest to its text. A row whose label "
    )
    return [
        Heading("Labels in a prompt"),
        Note(f"{note}is not among them is answered wrongly."),
        Grid(("target", "rows of validation", "right labels among them"), rows),
    ]


def _texts_per_prompt(details: dict[str, Any]) -> list[Part]:
    """How the number of texts in a prompt was chosen."""
    found = details.get("texts_per_prompt")
    if found is None:
        return []
    said = str(found["said"])
    parts: list[Part] = [Heading("Texts in a prompt"), Note(f"{said[0].upper()}{said[1:]}.")]
    targets = list(found["tried"][0]["accuracy"]) if found["tried"] else []
    rows = [
        (
            tried["texts"],
            *(tried["accuracy"][name] for name in targets),
            *(tried.get("loss_at_most", {}).get(name) for name in targets),
            tried["requests"],
            tried["tokens"],
        )
        for tried in found["tried"]
    ]
    if rows:
        accuracy = [f"accuracy of {name}" for name in targets]
        loss = [f"loss of {name} at most" for name in targets]
        caption = f"On {found['rows']:,} rows of validation; bounds are 95 % sure for all numbers together"
        parts.append(Grid(("texts", *accuracy, *loss, "requests", "tokens"), rows, caption))
    return parts


def _tuning(details: dict[str, Any]) -> list[Part]:
    """How the regularisation of each target's head was chosen."""
    parts: list[Part] = []
    for name, target in details.get("targets", {}).items():
        points = [(tried["C"], tried["log_loss"]) for tried in target.get("cross_validation") or [] if "C" in tried]
        checked = target.get("validation") or {}
        rows = [(key.replace("_", " "), value) for key, value in checked.items() if isinstance(value, int | float)]
        if points or rows or target.get("precisions"):
            parts.append(Heading(f"Fitting {name}"))
        if points:
            axes = ("inverse regularisation C", "log-loss")
            title = f"Cross-validation (C = {target.get('C'):g} was chosen)" if target.get("C") else "Cross-validation"
            parts.append(Curves(f"{name}-tuning", title, {"log-loss": points}, axes, log_x=True))
        if rows:
            parts.append(Grid(("on validation", "value"), rows))
        parts += _worth(checked)
        for precision in target.get("precisions", ()):
            parts.append(Note(f"{precision['said']}.", "warning" if precision["threshold"] is None else "good"))
    return parts


def _worth(checked: dict[str, Any]) -> list[Part]:
    """Whether a multi-label model is better than one that gives every label to every row."""
    every, labels = checked.get("micro_f1_every_label"), checked.get("labels_per_row")
    if every is None or labels is None:
        return []
    sentence = (
        f"It gives {labels['given']:.1f} labels a row; the rows have {labels['true']:.1f}. Giving every label to every "
        f"row would reach a micro F1 of {every:.3f}"
    )
    if checked["micro_f1"] > every * _CLEARLY_MORE:
        return [Note(f"{sentence}.")]
    return [Note(f"{sentence}: the model is worth nothing. Train it on more or better rows.", "bad")]


def _suspects(connection: Connection, document: dict[str, Any]) -> list[Part]:
    """Rows of train that a fit to other rows labels differently."""
    parts: list[Part] = []
    for name, analysis in load_analysis(connection, document["id"]).get("targets", {}).items():
        if "all_suspects" not in analysis:
            continue
        parts.append(Heading(f"Labels of train that are probably wrong: {name}"))
        parts.append(
            Note(
                f"{analysis['rows']:,} rows of train were each labelled by a fit to other rows "
                f"({analysis['fitted_rows']:,} of them). In {analysis['suspected']:,} it is sure of another label. "
                "Check them before you trust the others: correct the source and prepare it again, or leave them out.",
                "warning" if analysis["suspected"] else "good",
            )
        )
        parts += suspects_of(analysis, document["id"])
    return parts


def _evaluations(connection: Connection, training_id: str) -> list[Part]:
    evaluations = connection.execute(
        select(EvaluationRow.id, EvaluationRow.dataset_ref, EvaluationRow.split, EvaluationRow.metrics)
        .join(ModelRow, ModelRow.no == EvaluationRow.model_no)
        .join(TrainingRow, TrainingRow.model_no == ModelRow.no)
        .where(TrainingRow.id == training_id, EvaluationRow.metrics.is_not(None))
        .order_by(EvaluationRow.no)
    )
    rows = [
        (evaluation.id, evaluation.dataset_ref, evaluation.split, target, metrics["accuracy"], metrics["macro_f1"])
        for evaluation in evaluations
        for target, metrics in evaluation.metrics.items()
    ]
    headings = ("evaluation", "dataset", "split", "target", "accuracy", "macro F1")
    return [Heading("Evaluations"), Grid(headings, rows)] if rows else []
