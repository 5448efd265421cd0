"""The report of a batch: its answers, its failures, and drift against the data that the model was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, union_all
from sqlalchemy.engine import Connection

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database.tables import BatchRow, DatasetRow, DuplicateRow, ModelRow, RowErrorRow
from labelmill.report.baseline import baseline_of
from labelmill.report.batch_answers import Given, answers_to, best_scores, labels_given, repeats
from labelmill.report.drift import AnswerCounts, drift_between, moved_labels
from labelmill.report.parts import Dots, Grid, Heading, Histogram, Note, Part, Tone, facts, money

_LABELS_SHOWN = 40
_LABELS_MOVED = 8
_CAUSES_SHOWN = 20
_MANY_FAILED = 0.01


def parts_of(connection: Connection, document: dict[str, Any]) -> list[Part]:
    """The contents of a batch's page."""
    batch = (
        connection.execute(
            select(BatchRow.no, BatchRow.model_no, BatchRow.options).where(BatchRow.id == document["id"])
        )
        .mappings()
        .one()
    )
    model = connection.execute(select(ModelRow.__table__).where(ModelRow.no == batch["model_no"])).mappings().one()
    rows = document["rows"]
    parts: list[Part] = [
        facts(
            {
                "model": document["model"],
                "mode": document["mode"],
                **{f"rows {name}": count for name, count in rows.items()},
                "duplicates (not sent again)": document["duplicates"],
                "answered by the cache": document["cached"],
                "requests": document["requests"],
                "tokens": document["tokens"],
                "estimate": money(document["estimate"]),
                "cost": money(document["cost"]),
            }
        ),
        *_outcome(rows),
        *_failures(connection, batch["no"]),
    ]
    answered, scores = labels_given(connection, batch["no"]), best_scores(connection, batch["no"])
    for number, target in enumerate(LabelSchema.from_json(model["label_schema"] or []).targets):
        if scores.get(number):
            now = answers_to(connection, batch["no"], number, target, answered[number], scores[number])
            parts.append(Heading(f"Target {target.name}"))
            parts += _drift(connection, dict(batch), dict(model), target, now)
            parts += _target(target.name, answered[number], scores[number])
    return parts


def _outcome(rows: dict[str, int]) -> list[Part]:
    if not rows["submitted"]:
        return []
    parts: list[Part] = []
    for name, sentence in (
        ("failed", "A retry runs failed rows again; those refused for their content will fail again."),
        ("abstained", "Their best score was below the threshold; results --only abstained lists them."),
        ("cancelled", "Nothing was sent for them."),
        ("pending", "They have no answer yet."),
    ):
        if rows[name]:
            share = rows[name] / rows["submitted"]
            tone: Tone = "plain" if name != "failed" else "bad" if share > _MANY_FAILED else "warning"
            parts.append(Note(f"{rows[name]:,} rows ({share:.2%}) {name}. {sentence}", tone))
    return parts


def _failures(connection: Connection, batch_no: int) -> list[Part]:
    """Causes by number of rows, including rows that repeat a failed one."""
    own = select(RowErrorRow.code, RowErrorRow.message).where(RowErrorRow.batch_no == batch_no)
    repeated = (
        select(RowErrorRow.code, RowErrorRow.message)
        .join(DuplicateRow, repeats(RowErrorRow))
        .where(RowErrorRow.batch_no == batch_no)
    )
    both = union_all(own, repeated).subquery()
    causes = connection.execute(
        select(both.c.code, func.count().label("rows"), func.min(both.c.message))
        .group_by(both.c.code)
        .order_by(func.count().desc(), both.c.code)
        .limit(_CAUSES_SHOWN)
    ).all()
    rows = [(code, int(count), message) for code, count, message in causes]
    headings = ("cause", "rows", "for example")
    return [Grid(headings, rows, "Failed rows by cause", frozenset({2}))] if rows else []


def _target(name: str, answered: Given, scores: list[int]) -> list[Part]:
    total, labels_given = answered.answered, len(answered.rows)
    shown = answered.rows.most_common(_LABELS_SHOWN)
    note = f" (the {_LABELS_SHOWN} most frequent of {labels_given})" if labels_given > _LABELS_SHOWN else ""
    shares = {"batch": [count / total for _, count in shown]}
    rows = [(label, count, f"{count / total:.2%}") for label, count in shown]
    parts: list[Part] = [Histogram(f"{name}-scores", "Best scores", scores, "best score")]
    if shown:
        labels = [label for label, _ in shown]
        parts.append(Dots(f"{name}-labels", f"Labels{note}", labels, shares, "share of rows with an answer"))
    return [*parts, Grid(("label", "rows", "share"), rows, f"Labels{note}")]


def _drift(
    connection: Connection, batch: Mapping[str, Any], model: Mapping[str, Any], target: Target, now: AnswerCounts
) -> list[Part]:
    temperature = ((batch["options"] or {}).get("temperatures") or {}).get(target.name, 1.0)
    before = baseline_of(connection, model, target.name, temperature)
    if before is None:
        return [Note("Drift is not known: the model has no validation split here, and was not evaluated on its own.")]
    if not before.is_answers:
        return [_not_tested(model), *_moved(before.answers, now)]
    drift = drift_between(before.answers, now, before.split, multi=target.multi)
    if drift is None:
        return [Note(f"Drift is not known: {before.source} and those to this batch have nothing to compare.")]
    tested = [
        f"{name} p = {p_value:.2g}"
        for name, p_value in (("labels", drift.p_labels), ("best scores", drift.p_scores))
        if p_value is not None
    ]
    index = f"population stability index {drift.psi:.3f}; " if drift.psi is not None else ""
    basis = f" ({index}{', '.join(tested)}; below {drift.level:g} is believed. Against {before.source}.)"
    parts: list[Part] = [Note(drift.verdict + basis, drift.tone)]
    if before.answers.best_scores is None:
        parts.append(
            Note(
                "The best scores were not compared: those of that split are not known, or at another temperature. To "
                f"compare them too, run: {_evaluation_of(model, before.split)}."
            )
        )
    dropped = connection.scalar(select(DatasetRow.dropped).where(DatasetRow.id == model["dataset_id"]))
    if drift.tone in ("warning", "bad") and (dropped or {}).get("above_max_per_label"):
        parts.append(
            Note(
                "The dataset was prepared with --max-per-label, which evens its labels out: where frequent labels are "
                "more frequent here, that alone explains it."
            )
        )
    return [*parts, *_moved(before.answers, now)]


def _not_tested(model: Mapping[str, Any]) -> Note:
    return Note(
        "Drift is not known: of the validation split only the labels are, and the model's own mistakes differ from "
        f"them too. To compare answers with answers, run: {_evaluation_of(model, 'validation')}."
    )


def _evaluation_of(model: Mapping[str, Any], split: str) -> str:
    return f"labelmill evaluate {model['name']}@{model['version']} --split {split}"


def _moved(before: AnswerCounts, now: AnswerCounts) -> list[Part]:
    rows = [(label, f"{old:.2%}", f"{new:.2%}") for label, old, new in moved_labels(before, now)[:_LABELS_MOVED]]
    return [Grid(("label", "before", "in this batch"), rows, "Labels that moved most")] if rows else []
