"""The report of a batch: what came out, what did not, and whether it looks like what the model was measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson
from sqlalchemy import and_, case, func, select, union_all
from sqlalchemy.engine import Connection

from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database.tables import BatchRow, DatasetRow, DuplicateRow, ModelRow, PredictionRow, RowErrorRow
from labelmill.report.baseline import baseline_of
from labelmill.report.drift import FEW_ROWS, drift_between
from labelmill.report.parts import Dots, Grid, Heading, Histogram, Note, Part, Tone, facts, money

_BINS = 20
_LABELS_SHOWN = 40
_CAUSES_SHOWN = 20
_MANY_FAILED = 0.01


def parts_of(connection: Connection, document: dict[str, Any]) -> list[Part]:
    """What a batch's page holds."""
    batch = connection.execute(select(BatchRow.no, BatchRow.model_no).where(BatchRow.id == document["id"])).one()
    model = connection.execute(select(ModelRow.__table__).where(ModelRow.no == batch.model_no)).mappings().one()
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
                "cost": money(document["cost"]),
            }
        ),
        *_outcome(rows),
        *_failures(connection, batch.no),
    ]
    labels, scores = _labels_given(connection, batch.no), _scores(connection, batch.no)
    for number, target in enumerate(LabelSchema.from_json(model["label_schema"] or []).targets):
        if scores.get(number):
            parts.append(Heading(f"Target {target.name}"))
            parts += _drift(connection, dict(model), target.name, labels[number].rows)
            parts += _target(target.name, labels[number], scores[number])
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
    """Causes by how many rows they took; rows that repeat one that failed are counted too."""
    own = select(RowErrorRow.code, RowErrorRow.message).where(RowErrorRow.batch_no == batch_no)
    repeated = (
        select(RowErrorRow.code, RowErrorRow.message)
        .join(DuplicateRow, _repeats(RowErrorRow))
        .where(RowErrorRow.batch_no == batch_no)
    )
    both = union_all(own, repeated).subquery()
    found = connection.execute(
        select(both.c.code, func.count().label("rows"), func.min(both.c.message))
        .group_by(both.c.code)
        .order_by(func.count().desc(), both.c.code)
        .limit(_CAUSES_SHOWN)
    ).all()
    rows = [(code, int(count), message) for code, count, message in found]
    headings = ("cause", "rows", "for example")
    return [Grid(headings, rows, "Failed rows by cause", frozenset({2}))] if rows else []


def _repeats(table: type[PredictionRow | RowErrorRow]) -> Any:
    return and_(DuplicateRow.batch_no == table.batch_no, DuplicateRow.first_row == table.row)


def _answers(batch_no: int) -> Any:
    columns = (PredictionRow.target, PredictionRow.label, PredictionRow.labels, PredictionRow.score)
    own = select(*columns).where(PredictionRow.batch_no == batch_no)
    repeated = select(*columns).join(DuplicateRow, _repeats(PredictionRow)).where(PredictionRow.batch_no == batch_no)
    return union_all(own, repeated).subquery()


@dataclass
class _Given:
    """Rows by label, and how many rows have an answer: those that did not abstain."""

    rows: Counter[str] = field(default_factory=Counter)
    answered: int = 0


def _labels_given(connection: Connection, batch_no: int) -> dict[int, _Given]:
    """target number → what it was given."""
    answers = _answers(batch_no).c
    found: dict[int, _Given] = {}
    for target, label, labels, count in connection.execute(
        select(answers.target, answers.label, answers.labels, func.count()).group_by(
            answers.target, answers.label, answers.labels
        )
    ):
        given = found.setdefault(int(target), _Given())
        if label is None and labels is None:
            continue  # abstained
        given.answered += int(count)
        names = [label] if label is not None else orjson.loads(labels)
        given.rows.update(dict.fromkeys(names, int(count)))
    return found


def _scores(connection: Connection, batch_no: int) -> dict[int, list[int]]:
    """target number → rows by best score, in bins of 1/20."""
    answers = _answers(batch_no).c
    at_least = [func.sum(case((answers.score >= step / _BINS, 1), else_=0)) for step in range(1, _BINS)]
    found = {}
    for target, rows, *counts in connection.execute(
        select(answers.target, func.count(), *at_least).group_by(answers.target)
    ):
        edges = [int(rows), *map(int, counts), 0]
        found[int(target)] = [more - less for more, less in pairwise(edges)]
    return found


def _target(name: str, given: _Given, scores: list[int]) -> list[Part]:
    total, labels_given = given.answered, len(given.rows)
    shown = given.rows.most_common(_LABELS_SHOWN)
    note = f" (the {_LABELS_SHOWN} most frequent of {labels_given})" if labels_given > _LABELS_SHOWN else ""
    shares = {"batch": [count / total for _, count in shown]}
    rows = [(label, count, f"{count / total:.2%}") for label, count in shown]
    parts: list[Part] = [Histogram(f"{name}-scores", "Best scores", scores, "best score")]
    if shown:
        labels = [label for label, _ in shown]
        parts.append(Dots(f"{name}-labels", f"Labels{note}", labels, shares, "share of rows with an answer"))
    return [*parts, Grid(("label", "rows", "share"), rows, f"Labels{note}")]


def _drift(connection: Connection, model: Mapping[str, Any], target: str, given: Counter[str]) -> list[Part]:
    before = baseline_of(connection, model, target)
    if before is None:
        return [Note("Drift is not known: the model has no validation split here, and was not evaluated on its own.")]
    found = drift_between(before.counts, given, before.split)
    if found is None:
        return [Note(f"Drift is not known: it takes {FEW_ROWS} labels here and in {before.source}.")]
    index = (
        f" (Population stability index {found.psi:.3f}; up to {found.by_luck:.3f} is luck. Against {before.source}.)"
    )
    parts: list[Part] = [Note(found.verdict + index, found.tone)]
    if found.tone != "good" and not before.is_answers:
        parts.append(
            Note(
                "Answers are compared with labels here, so the model's own mistakes look like drift. To compare "
                f"answers with answers, run: labelmill evaluate {model['name']}@{model['version']} --split validation."
            )
        )
    dropped = connection.scalar(select(DatasetRow.dropped).where(DatasetRow.id == model["dataset_id"]))
    if found.tone != "good" and (dropped or {}).get("above_max_per_label"):
        parts.append(
            Note(
                "The dataset was prepared with --max-per-label, which evens its labels out: where frequent labels are "
                "more frequent here, that alone explains it."
            )
        )
    rows = [(label, f"{old:.2%}", f"{new:.2%}") for label, old, new in found.moved]
    return [*parts, Grid(("label", "before", "in this batch"), rows, "Labels that moved most")]
