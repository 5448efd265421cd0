"""The answers of a batch, counted in SQL."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
from sqlalchemy import and_, case, func, select, union_all
from sqlalchemy.engine import Connection

from labelmill.contracts.label_schema import Target
from labelmill.core.database.tables import DuplicateRow, PredictionRow, RowErrorRow
from labelmill.report.drift import AnswerCounts

BINS = 20  #: Of best scores; evaluations and trainings count in as many.
_AT_ONCE = 10_000


@dataclass
class Given:
    """Rows by label, and how many rows have an answer: those that did not abstain."""

    rows: Counter[str] = field(default_factory=Counter)
    answered: int = 0


def repeats(table: type[PredictionRow | RowErrorRow]) -> Any:
    """The rows that repeat those of `table`, and have their answers."""
    return and_(DuplicateRow.batch_no == table.batch_no, DuplicateRow.first_row == table.row)


def _answers(batch_no: int) -> Any:
    columns = (PredictionRow.target, PredictionRow.label, PredictionRow.labels, PredictionRow.score)
    own = select(*columns).where(PredictionRow.batch_no == batch_no)
    repeated = select(*columns).join(DuplicateRow, repeats(PredictionRow)).where(PredictionRow.batch_no == batch_no)
    return union_all(own, repeated).subquery()


def labels_given(connection: Connection, batch_no: int) -> dict[int, Given]:
    """target number → its rows by label."""
    answers = _answers(batch_no).c
    by_target: dict[int, Given] = {}
    for target, label, labels, count in connection.execute(
        select(answers.target, answers.label, answers.labels, func.count()).group_by(
            answers.target, answers.label, answers.labels
        )
    ):
        answered = by_target.setdefault(int(target), Given())
        if label is None and labels is None:
            continue  # abstained
        answered.answered += int(count)
        names = [label] if label is not None else orjson.loads(labels)
        answered.rows.update(dict.fromkeys(names, int(count)))
    return by_target


def best_scores(connection: Connection, batch_no: int) -> dict[int, list[int]]:
    """target number → rows by best score, in bins of 1/20."""
    answers = _answers(batch_no).c
    at_least = [func.sum(case((answers.score >= step / BINS, 1), else_=0)) for step in range(1, BINS)]
    by_target = {}
    for target, rows, *counts in connection.execute(
        select(answers.target, func.count(), *at_least).group_by(answers.target)
    ):
        edges = [int(rows), *map(int, counts), 0]
        by_target[int(target)] = [more - less for more, less in pairwise(edges)]
    return by_target


def answers_to(
    connection: Connection, batch_no: int, number: int, target: Target, answered: Given, scores: list[int]
) -> AnswerCounts:
    """The model's answers to all rows, including those that abstained, because a threshold is not drift. The labels of
    abstained rows of a multi-label target are not known."""
    rows = sum(scores)
    if rows == answered.answered:
        return AnswerCounts(rows, answered.rows, scores)
    labels = None if target.multi else answered.rows + _best_of_abstained(connection, batch_no, number, target)
    return AnswerCounts(rows, labels, scores)


def _best_of_abstained(connection: Connection, batch_no: int, number: int, target: Target) -> Counter[str]:
    abstained = (
        PredictionRow.batch_no == batch_no,
        PredictionRow.target == number,
        PredictionRow.label.is_(None),
        PredictionRow.labels.is_(None),
    )
    repeated = {
        int(row): int(count)
        for row, count in connection.execute(
            select(DuplicateRow.first_row, func.count())
            .join(PredictionRow, repeats(PredictionRow))
            .where(*abstained)
            .group_by(DuplicateRow.first_row)
        )
    }
    counts = np.zeros(len(target.labels), np.int64)
    rows_found = connection.execution_options(yield_per=_AT_ONCE).execute(
        select(PredictionRow.row, PredictionRow.scores).where(*abstained)
    )
    for block in rows_found.partitions():
        table = np.frombuffer(b"".join(abstained_row.scores for abstained_row in block), "<f4").reshape(len(block), -1)
        weights = [1 + repeated.get(abstained_row.row, 0) for abstained_row in block]
        counts += np.bincount(table.argmax(axis=1), weights, len(counts)).astype(np.int64)
    return Counter({label: int(count) for label, count in zip(target.labels, counts, strict=True) if count})
