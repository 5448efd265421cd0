"""Rows on their way: bodies in an Arrow file on disk, a few bytes a row in memory (label numbers, text digests)."""

from __future__ import annotations

import hashlib
import importlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.prepare.parse import ParsedRow, TargetList
from labelmill_worker.prepare.selection import LabelColumn, Rows

BLOCK_ROWS = 1000
BLOCK_BYTES = 16 << 20


class _Labels:
    """One target's labels as they come, numbered by first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.codes = array("i")
        self.per_row = array("i")

    def add(self, labels: list[str]) -> None:
        numbers = self.numbers
        for label in labels:
            self.codes.append(numbers.setdefault(label, len(numbers)))
        self.per_row.append(len(labels))

    def column(self, name: str, *, multi: bool) -> LabelColumn:
        labels = sorted(self.numbers)
        number_of = np.empty(len(labels), np.int32)
        for number, label in enumerate(labels):
            number_of[self.numbers[label]] = number
        codes = number_of[np.frombuffer(self.codes, np.int32)]
        rows = np.arange(len(self.per_row))
        owner = np.repeat(rows, np.frombuffer(self.per_row, np.int32)) if multi else rows
        return LabelColumn(name, tuple(labels), multi, owner, codes)


class StagedRows:
    """Takes rows one by one; then gives their labels as columns and their bodies in any order.

    A context manager: the file goes with it.
    """

    def __init__(self, file: Path, *, digests: bool) -> None:
        self.rows = 0
        self._file = file
        self._digests = array("Q") if digests else None
        self._labels: list[_Labels] = []
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._arrow = importlib.import_module("pyarrow")
        self._datasets = importlib.import_module("datasets")
        writer = importlib.import_module("datasets.arrow_writer").ArrowWriter
        self._schema = self._arrow.schema([("body", self._arrow.binary())])
        self._writer = writer(path=str(file), schema=self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()
        self._file.unlink(missing_ok=True)

    def add(self, row: ParsedRow) -> None:
        """Keep one row."""
        if not self._labels:
            self._labels = [_Labels() for _ in row.labels]
        for labels, names in zip(self._labels, row.labels, strict=True):
            labels.add(names)
        if self._digests is not None:
            # 64 bits: among ten million texts two that differ look alike with a chance of 3 in a million
            self._digests.append(int.from_bytes(hashlib.blake2b(row.body, digest_size=8).digest(), "little"))
        self._block.append(row.body)
        self._block_bytes += len(row.body)
        self.rows += 1
        if len(self._block) >= BLOCK_ROWS or self._block_bytes >= BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._block:
            bodies = self._arrow.array(self._block, self._arrow.binary())
            self._writer.write_table(self._arrow.Table.from_arrays([bodies], schema=self._schema))
            self._block, self._block_bytes = [], 0

    def finish(self) -> None:
        """No more rows come."""
        self._flush()
        self._writer.finalize()

    def columns(self, targets: TargetList) -> list[LabelColumn]:
        """The labels of all rows, a column a target."""
        return [
            labels.column(name, multi=multi)
            for labels, name, multi in zip(self._labels, targets.names, targets.multi, strict=True)
        ]

    def digests(self) -> NDArray[np.uint64] | None:
        """A number a row that equal texts share; None when not asked for."""
        return None if self._digests is None else np.frombuffer(self._digests, np.uint64)

    def bodies(self, rows: Rows) -> Iterator[bytes]:
        """The bodies of `rows`, in that order, read from disk."""
        everything: Any = self._datasets.Dataset.from_file(str(self._file)).with_format("arrow")
        for start in range(0, len(rows), BLOCK_ROWS):
            yield from everything[rows[start : start + BLOCK_ROWS]]["body"].to_pylist()
