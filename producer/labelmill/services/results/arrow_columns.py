"""Rows of a chunk as a record batch of Arrow, array by array from the chunk's columns. Pure; needs pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.contracts.label_schema import Target
from labelmill.services.results.kept_columns import ReadKept
from labelmill.services.results.lines import ChunkResults, TargetAnswers, best_first
from labelmill.services.results.scores import ScoreChoice
from labelmill.services.results.tables import ResultTable, label_cell


def record_batch(
    chunk: ChunkResults, rows: NDArray[np.int64], table: ResultTable, schema: pa.Schema, read_kept: ReadKept | None
) -> pa.RecordBatch:
    """Some of the chunk's rows, by their numbers."""
    indices = (rows - chunk.first_row).tolist()
    texts = _strings(chunk.input.texts, indices)
    columns = [pa.array(rows), _ids(chunk, rows, indices), pa.array(texts, pa.string())]
    answers = {target.name: (target, of_target) for target, of_target in chunk.answers}
    for name in table.targets:
        columns += _answer_columns(*answers[name], rows, chunk.choice)
    columns += _error_columns(chunk, rows)
    if read_kept is not None:
        kept = [read_kept(row, text) for row, text in zip(rows.tolist(), texts, strict=True)]
        cells = [table.kept_cells(orjson.loads(orjson.dumps(values, default=str))) for values in kept]
        columns += [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _strings(quoted: Sequence[bytes], indices: list[int]) -> list[str]:
    listed: list[str] = orjson.loads(b'["' + b'","'.join(map(quoted.__getitem__, indices)) + b'"]')
    return listed


def _ids(chunk: ChunkResults, rows: NDArray[np.int64], indices: list[int]) -> Any:
    if chunk.input.ids is None:
        return pa.array(rows).cast(pa.string())
    return pa.array([name or None for name in _strings(chunk.input.ids, indices)], pa.string())


def _answer_columns(target: Target, answers: TargetAnswers, rows: NDArray[np.int64], choice: ScoreChoice) -> list[Any]:
    """A target's label, score, best label and scores; null in rows without an answer."""
    places = np.searchsorted(answers.rows, rows)
    is_answered = places < np.searchsorted(answers.rows, rows, side="right")
    answers = answers.at(places[is_answered])
    # by way of their shortest decimals: as 64-bit numbers they are what the lines of JSON say
    scores = orjson.loads(orjson.dumps(answers.best, option=orjson.OPT_SERIALIZE_NUMPY))
    labels, best = _label_columns(answers.heads)
    columns = [labels, pa.array(scores, pa.float64()), best]
    if choice.at_most != 0:
        columns.append(_score_maps(target, answers, choice))
    if is_answered.all():
        return columns
    of_rows = pa.array(np.cumsum(is_answered) - 1, mask=~is_answered)
    return [column.take(of_rows) for column in columns]


def _label_columns(heads: list[bytes]) -> tuple[Any, Any]:
    """The label or labels, and the best label of a row that abstained: many rows have the same ones."""
    places = {head: place for place, head in enumerate(dict.fromkeys(heads))}
    answers = [orjson.loads(b"{%b}" % head) for head in places]
    of_rows = pa.array(np.fromiter(map(places.__getitem__, heads), np.int32, len(heads)))
    labels = pa.array(list(map(label_cell, answers)), pa.string())
    best = pa.array([answer.get("best") for answer in answers], pa.string())
    return labels.take(of_rows), best.take(of_rows)


def _score_maps(target: Target, answers: TargetAnswers, choice: ScoreChoice) -> Any:
    """The chosen scores of each row by label."""
    if choice.at_most is None:
        count, scores = len(target.labels), answers.scores
        order = np.tile(np.arange(count), len(answers))
    else:
        count = min(choice.at_most, len(target.labels))
        best = best_first(answers.scores, count)
        scores, order = np.take_along_axis(answers.scores, best, axis=1), best.reshape(-1)
    return pa.MapArray.from_arrays(
        pa.array(np.arange(len(answers) + 1, dtype=np.int32) * np.int32(count)),
        pa.array(target.labels, pa.string()).take(pa.array(order)),
        pa.array(scores.reshape(-1)),
    )


def _error_columns(chunk: ChunkResults, rows: NDArray[np.int64]) -> list[Any]:
    """The codes and the messages of errors."""
    if not chunk.errors:
        return [pa.nulls(len(rows), pa.string())] * 2
    errors = [chunk.errors.get(row, (None, None)) for row in rows.tolist()]
    return [pa.array(cells, pa.string()) for cells in zip(*errors, strict=True)]
