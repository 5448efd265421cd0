"""The labelled vectors of a split, in a file of their own: read in blocks, however many there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema, Target

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int32]

_BLOCK_ROWS = 8_192


@dataclass(frozen=True)
class TargetLabels:
    """The labels of every row for one target: `codes[starts[row]:starts[row + 1]]`. A row may have none."""

    target: Target
    starts: NDArray[np.int64]
    codes: Numbers

    def single(self, rows: NDArray[np.int64]) -> Numbers:
        """The label number of each row, -1 where it has none."""
        has = self.starts[rows + 1] > self.starts[rows]
        numbers = np.full(len(rows), -1, np.int32)
        numbers[has] = self.codes[self.starts[rows[has]]]
        return numbers

    def present(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(rows, labels): which labels each row has."""
        counts = self.starts[rows + 1] - self.starts[rows]
        table = np.zeros((len(rows), len(self.target.labels)), bool)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        codes = self.codes[np.repeat(self.starts[rows], counts) + within]
        table[np.repeat(np.arange(len(rows)), counts), codes] = True
        return table

    def labelled(self) -> NDArray[np.int64]:
        """Rows that take part in this target's fit: all of a multi-label target's, else those with a label."""
        rows = np.arange(len(self.starts) - 1)
        return rows if self.target.multi else rows[self.starts[1:] > self.starts[:-1]]


@dataclass(frozen=True)
class VectorRows:
    """`count` vectors of `dimensions` float16 numbers each, in a file, with their labels."""

    path: Path
    count: int
    dimensions: int
    labels: Sequence[TargetLabels]

    def blocks(self) -> Iterator[tuple[int, Matrix]]:
        """Every vector, as `(number of the first, float32 matrix)`. Reads as it goes: memory stays flat."""
        with self.path.open("rb") as file:
            for start in range(0, self.count, _BLOCK_ROWS):
                rows = min(_BLOCK_ROWS, self.count - start)
                raw = np.frombuffer(file.read(rows * self.dimensions * 2), "<f2")
                yield start, raw.reshape(rows, self.dimensions).astype(np.float32)

    def take(self, rows: NDArray[np.int64]) -> Matrix:
        """The vectors of `rows` (ascending), float32."""
        vectors = np.empty((len(rows), self.dimensions), np.float32)
        for start, block in self.blocks():
            low, high = np.searchsorted(rows, [start, start + len(block)])
            vectors[low:high] = block[rows[low:high] - start]
        return vectors


def write_vector_rows(path: Path, schema: LabelSchema, rows: Iterable[tuple[bytes, dict[str, Any]]]) -> VectorRows:
    """Write `(vector as stored, labels by target)` one after the other. Raises Permanent when vectors differ in length
    or the disk refuses."""
    numbers = [{label: number for number, label in enumerate(target.labels)} for target in schema.targets]
    starts, codes = [array("q", [0]) for _ in schema.targets], [array("i") for _ in schema.targets]
    count = size = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=1 << 20) as file:
            for data, labels in rows:
                if count and len(data) != size:
                    raise Permanent("the dataset's vectors have several lengths: they come from different models")
                size = len(data)
                count += 1
                file.write(data)
                for number, target in enumerate(schema.targets):
                    value = labels.get(target.name)
                    values = value if isinstance(value, list) else [] if value is None else [value]
                    # a label that the schema does not know cannot be learnt, nor counted as right
                    known = [numbers[number][label] for label in values if label in numbers[number]]
                    codes[number].extend(known)
                    starts[number].append(len(codes[number]))
    except OSError as error:
        raise Permanent(f"the data folder cannot be written: {error.strerror}") from error
    labels_of = [
        TargetLabels(target, np.array(starts[number], np.int64), np.array(codes[number], np.int32))
        for number, target in enumerate(schema.targets)
    ]
    return VectorRows(path, count, size // 2, labels_of)
