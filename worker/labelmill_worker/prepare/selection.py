"""Which rows stay: no duplicates, enough rows a label, not too many. Pure; rows are numbers, labels are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
SEEDS = 2**32  # numpy's legacy generators, which scikit-learn and pandas build on, take no larger ones


@dataclass(frozen=True)
class LabelColumn:
    """One target's labels over all rows. Label numbers follow the alphabet.

    `owner[i]` is the row that label `codes[i]` belongs to, ascending; a single-label target has exactly one a row. A
    row of a multi-label target may have none: that no label applies is its answer.
    """

    name: str
    labels: tuple[str, ...]
    multi: bool
    owner: NDArray[np.int64]
    codes: NDArray[np.int32]

    def counts(self, kept: Mask, entries: Mask) -> NDArray[np.int64]:
        """Rows of each label among the rows and entries kept."""
        return np.bincount(self.codes[kept[self.owner] & entries], minlength=len(self.labels))


@dataclass
class Selection:
    """Rows kept, and per target the label entries kept; `dropped` counts rows by reason."""

    kept: Mask
    entries: list[Mask]
    dropped: dict[str, int]
    order: Rows | None = None  #: The kept rows in the order they are split in; None: as they come.

    def rows(self) -> Rows:
        """The kept rows, in their order."""
        return np.flatnonzero(self.kept) if self.order is None else self.order

    def drop(self, rows: Mask, reason: str) -> bool:
        """Drop those of `rows` that are still there. Returns whether there were any."""
        count = int(np.count_nonzero(rows & self.kept))
        if count:
            self.kept &= ~rows
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        return bool(count)


def all_rows(columns: Sequence[LabelColumn], rows: int) -> Selection:
    """A selection of everything."""
    return Selection(np.ones(rows, bool), [np.ones(len(column.codes), bool) for column in columns], {})


def drop_duplicates(selection: Selection, digests: NDArray[np.uint64]) -> None:
    """Of rows with the same text digest the first stays."""
    repeated = np.ones(len(digests), bool)
    repeated[np.unique(digests, return_index=True)[1]] = False
    selection.drop(repeated, "duplicate_text")


def apply_floor(selection: Selection, columns: Sequence[LabelColumn], min_rows: int) -> None:
    """Drop labels with fewer than `min_rows` rows, and rows that lose all their labels in some target, until all is
    quiet. A row that never had a label stays: its answer is another one than "none of the labels that are left"."""
    had_labels = [_with_labels(column, len(selection.kept)) for column in columns]
    changed = True
    while changed:
        changed = False
        for number, column in enumerate(columns):
            rare = column.counts(selection.kept, selection.entries[number]) < min_rows
            selection.entries[number] &= ~rare[column.codes]
            labelled = _with_labels(column, len(selection.kept), selection.entries[number])
            changed |= selection.drop(had_labels[number] & ~labelled, "below_min_per_label")


def _with_labels(column: LabelColumn, rows: int, entries: Mask | None = None) -> Mask:
    """Which of `rows` rows have a label, of those in `entries`."""
    labelled = np.zeros(rows, bool)
    labelled[column.owner if entries is None else column.owner[entries]] = True
    return labelled


def apply_cap(selection: Selection, column: LabelColumn, entries: Mask, max_rows: int, seed: int) -> None:
    """Keep at most `max_rows` rows of each label, drawn by `seed`.

    A row with several labels stays while one of them has room; rows without any count as one more label. For single
    labels the draw is that of `DataFrame.groupby(label).sample(max_rows, random_state=seed)`, so the public cookbooks
    come out row by row.
    """
    before = selection.kept.copy()
    if column.multi:
        order = _draw_multi(selection.kept, column, entries, max_rows, seed)
    else:
        parts = []
        rows = np.flatnonzero(selection.kept)
        codes = column.codes[rows]
        for rows_of_label in np.split(rows[np.argsort(codes, kind="stable")], _ends(codes, len(column.labels))):
            draw = np.random.RandomState(seed % SEEDS)
            size = min(len(rows_of_label), max_rows)
            if size:
                parts.append(rows_of_label[draw.choice(len(rows_of_label), size, replace=False)])
        order = np.concatenate(parts) if parts else rows
    inside = np.zeros(len(before), bool)
    inside[order] = True
    selection.drop(before & ~inside, "above_max_per_label")
    selection.order = order


def _ends(codes: NDArray[np.int32], labels: int) -> NDArray[np.int64]:
    return np.cumsum(np.bincount(codes, minlength=labels))[:-1]


def _draw_multi(kept: Mask, column: LabelColumn, entries: Mask, max_rows: int, seed: int) -> Rows:
    starts = np.searchsorted(column.owner, np.arange(len(kept) + 1))
    nothing = np.array([len(column.labels)])
    counts = np.zeros(len(column.labels) + 1, np.int64)
    chosen = []
    for row in np.random.RandomState(seed % SEEDS).permutation(np.flatnonzero(kept)):
        entries_of_row = slice(starts[row], starts[row + 1])
        codes = column.codes[entries_of_row][entries[entries_of_row]] if entries[entries_of_row].any() else nothing
        if (counts[codes] < max_rows).any():
            counts[codes] += 1
            chosen.append(row)
    return np.sort(np.array(chosen, np.int64))


def strata_of(column: LabelColumn, entries: Mask, rows: Rows) -> NDArray[np.int64]:
    """The label number each of `rows` is balanced by: its label, or the rarest of its labels; rows without any have a
    number of their own."""
    if not column.multi:
        return column.codes[rows].astype(np.int64)
    wanted = np.zeros(int(max(column.owner[-1:].max(initial=0), rows.max(initial=0))) + 1, bool)
    wanted[rows] = True
    used = np.flatnonzero(entries & wanted[column.owner])
    owner, codes = column.owner[used], column.codes[used]
    frequency = np.bincount(codes, minlength=len(column.labels))[codes]
    order = np.lexsort((codes, frequency, owner))
    first = np.r_[True, np.diff(owner[order]) > 0] if len(order) else np.zeros(0, bool)
    rarest = np.full(len(wanted), len(column.labels), np.int64)
    rarest[owner[order][first]] = codes[order][first]
    return rarest[rows]
