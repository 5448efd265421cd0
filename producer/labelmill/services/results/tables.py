"""The columns of a table of results, for CSV, Parquet and Arrow alike, and rows as cells under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from labelmill.core.readers.bad_rows import value_as_text
from labelmill.services.results.columns import ResultColumns


class ResultTable:
    """`row`, `id`, `text`, then for each target `TARGET`, `TARGET_score`, `TARGET_best` (of a row that abstained) and
    `TARGET_scores`, then the error's columns and the kept columns of the source."""

    def __init__(self, targets: Sequence[str], keep: Sequence[str], *, with_scores: bool) -> None:
        names = ResultColumns(targets, keep)
        self.targets = list(names.targets)
        self.keep = list(names.kept)
        self._with_scores = with_scores
        #: Each column's heading and kind: `row`, `text`, `score` or `scores`.
        self.columns: list[tuple[str, str]] = [("row", "row"), ("id", "text"), ("text", "text")]
        for name in names.targets.values():
            self.columns += [(name, "text"), (f"{name}_score", "score"), (f"{name}_best", "text")]
            if with_scores:
                self.columns.append((f"{name}_scores", "scores"))
        self.columns += [("error_code", "text"), ("error_message", "text")]
        self.columns += [(name, "text") for name in names.kept.values()]

    def cells(self, row: dict[str, Any]) -> list[Any]:
        """One row's cells, in the order of the columns. Scores are a dictionary by label; a list of labels is JSON."""
        cells = [row["row"], row["id"], row["text"]]
        predictions = row["predictions"]
        for target in self.targets:
            answer = predictions.get(target, {})
            cells += [label_cell(answer), answer.get("score"), answer.get("best")]
            if self._with_scores:
                cells.append(answer.get("scores"))
        error = row["error"] or {}
        cells += [error.get("code"), error.get("message")]
        return cells + self.kept_cells(row.get("keep", {}))

    def kept_cells(self, kept: Mapping[str, Any]) -> list[str | None]:
        """The cells of one row's kept columns, of which the values are those of JSON."""
        return [_kept_cell(kept.get(column)) for column in self.keep]


def label_cell(answer: Mapping[str, Any]) -> str | None:
    """The label of a prediction, or its list of labels as JSON."""
    labels = answer.get("labels")
    return answer.get("label") if labels is None else orjson.dumps(labels).decode()


def _kept_cell(value: Any) -> str | None:
    """A kept value as text: a column of a JSONL file may contain any JSON."""
    if value is None:
        return None
    text = value_as_text(value)
    return orjson.dumps(value).decode() if text is None else text
