"""The files of a dataset, in the factory's format, and what is counted over them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.contracts.specs import PrepareSpec
from labelmill_worker.prepare.selection import LabelColumn, Mask, Rows, Selection
from labelmill_worker.prepare.staging import StagedRows

SplitRows = dict[str, Rows]

#: What a dataset is called and where it came from does not change what it is.
_NOT_CONTENT = {
    "name",
    "source",
    "files",
    "hf",
    "separator",
    "reading",
    "formats",
}  #: Of the options: what the files' bytes say as well.


@dataclass(frozen=True)
class RowLabels:
    """Looks up the encoded labels of a row."""

    columns: Sequence[LabelColumn]
    entries: Sequence[Mask]
    starts: Sequence[Rows]

    @classmethod
    def of(cls, columns: Sequence[LabelColumn], selection: Selection) -> RowLabels:
        bounds = np.arange(len(selection.kept) + 1)
        return cls(
            columns, selection.entries, [np.searchsorted(c.owner, bounds) if c.multi else bounds for c in columns]
        )

    def encode(self, row: int) -> bytes:
        """`{"intent":"play_music","emotion":["joy","pride"]}`."""
        found: dict[str, str | list[str]] = {}
        for column, entries, starts in zip(self.columns, self.entries, self.starts, strict=True):
            if not column.multi:
                found[column.name] = column.labels[column.codes[row]]
                continue
            entries_of_row = slice(starts[row], starts[row + 1])
            found[column.name] = [column.labels[code] for code in column.codes[entries_of_row][entries[entries_of_row]]]
        return orjson.dumps(found)


def write_splits(folder: Path, staged: StagedRows, labels: RowLabels, splits: SplitRows) -> dict[str, str]:
    """Write `train.jsonl` and so on into `folder`. Returns the SHA-256 of each file, by split."""
    digests = {}
    for split, rows in splits.items():
        digest = hashlib.sha256()
        with (folder / f"{split}.jsonl").open("wb", buffering=1 << 20) as file:
            for row, body in zip(rows.tolist(), staged.bodies(rows), strict=True):
                line = b'%b,"labels":%b}\n' % (body[:-1], labels.encode(row))
                digest.update(line)
                file.write(line)
        digests[split] = digest.hexdigest()
    return digests


def fingerprint_of(spec: PrepareSpec, digests: dict[str, str]) -> str:
    """SHA-256 over the options and every file's bytes; names and places do not count."""
    document = {"options": spec.model_dump(mode="json", exclude=_NOT_CONTENT), "files": digests}
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def count_labels(
    columns: Sequence[LabelColumn], selection: Selection, splits: SplitRows
) -> dict[str, dict[str, dict[str, int]]]:
    """`{target: {split: {label: rows}}}`, labels in the alphabet's order; those without any row are left out."""
    counted: dict[str, dict[str, dict[str, int]]] = {}
    for column, entries in zip(columns, selection.entries, strict=True):
        present = column.counts(selection.kept, entries) > 0
        counted[column.name] = {}
        for split, rows in splits.items():
            inside = np.zeros(len(selection.kept), bool)
            inside[rows] = True
            counts = column.counts(inside, entries).tolist()
            counted[column.name][split] = {
                label: count for label, count, there in zip(column.labels, counts, present, strict=True) if there
            }
    return counted


def label_schema_of(columns: Sequence[LabelColumn], selection: Selection) -> list[dict[str, Any]]:
    """The schema as it is stored in SQL: each target with its labels, sorted."""
    targets = []
    for column, entries in zip(columns, selection.entries, strict=True):
        counts = column.counts(selection.kept, entries)
        labels = tuple(label for label, count in zip(column.labels, counts, strict=True) if count)
        targets.append(Target(column.name, labels, column.multi))
    return LabelSchema(tuple(targets)).to_json()
