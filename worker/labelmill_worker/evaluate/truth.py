"""The labels that a split's rows really have."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.storage.base import ReadableFile
from labelmill_worker.train.dataset_rows import missing_here


@dataclass(frozen=True)
class Truth:
    """The truth of one target. Label numbers are of `names`: the model's labels in stored order, then those that only
    the dataset has. `codes[starts[i]:starts[i + 1]]` are the labels of row `rows[i]`."""

    target: Target
    names: list[str]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    codes: NDArray[np.int32]

    def single(self) -> NDArray[np.int32]:
        """The label number of each row."""
        return self.codes[self.starts[:-1]]

    def present(self) -> NDArray[np.bool_]:
        """(rows, names): which labels each row has."""
        table = np.zeros((len(self.rows), len(self.names)), bool)
        table[np.repeat(np.arange(len(self.rows)), np.diff(self.starts)), self.codes] = True
        return table


def read_split(split: ReadableFile) -> Iterator[dict[str, Any]]:
    """The rows of a prepared split: `{"text", "labels"}`. Raises WorkerUnable when it is not there, Permanent."""
    try:
        with split.open("rb") as lines:
            yield from map(orjson.loads, lines)
    except OSError as error:
        raise missing_here(split, error) from error
    except ValueError as error:
        raise Permanent(f"the prepared split {split.name} cannot be read: prepare the dataset again") from error


def read_truth(split: ReadableFile, schema: LabelSchema) -> tuple[int, list[Truth]]:
    """How many rows the split has, and the truth of every target of the model that it has labels for.

    Raises Permanent when it has none, or several labels for a target with one.
    """
    columns = [_Column(target) for target in schema.targets]
    count = 0
    for count, row in enumerate(read_split(split), 1):
        for column in columns:
            column.add(count - 1, row["labels"].get(column.target.name))
    truths = [column.truth() for column in columns if column.rows]
    if not truths:
        names = ", ".join(target.name for target in schema.targets)
        raise Permanent(f"the dataset has no labels for any target of the model ({names})")
    return count, truths


class _Column:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.rows = array("q")
        self._numbers = {label: number for number, label in enumerate(target.labels)}
        self._starts, self._codes = array("q", [0]), array("i")

    def add(self, row: int, value: str | Sequence[str] | None) -> None:
        if value is None:
            return
        labels = [value] if isinstance(value, str) else value
        if not self.target.multi and len(labels) != 1:
            raise Permanent(
                f"row {row} has {len(labels)} labels for {self.target.name!r}, to which the model gives one"
            )
        self.rows.append(row)
        self._codes.extend(self._numbers.setdefault(label, len(self._numbers)) for label in labels)
        self._starts.append(len(self._codes))

    def truth(self) -> Truth:
        return Truth(
            self.target,
            list(self._numbers),
            np.array(self.rows, np.int64),
            np.array(self._starts, np.int64),
            np.array(self._codes, np.int32),
        )
