"""Whether every label reaches every split; a label that no split teaches or tests is an error said early. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.errors import InvalidInput
from labelmill_worker.prepare.selection import LabelColumn, Selection
from labelmill_worker.prepare.split import SPLITS

_NAMED = 5


def check_enough_rows(columns: Sequence[LabelColumn], selection: Selection, parts: tuple[float, float, float]) -> None:
    """Raise InvalidInput for labels with fewer rows than there are splits."""
    splits = sum(part > 0 for part in parts)
    for column, entries in zip(columns, selection.entries, strict=True):
        counts = column.counts(selection.kept, entries)
        few = np.flatnonzero((counts > 0) & (counts < splits))
        if len(few):
            named = ", ".join(f"{column.labels[n]!r} ({counts[n]})" for n in few[:_NAMED]) + _more(few)
            raise InvalidInput(
                f"target {column.name} has labels with too few rows to be in each of {splits} splits: {named}; "
                f"leave such labels out with --min-per-label {splits}"
            )


def check_strata_covered(
    column: LabelColumn,
    strata: NDArray[np.int64],
    found: Sequence[NDArray[np.int64]],
    parts: tuple[float, float, float],
) -> None:
    """Raise InvalidInput when a split that was asked for holds no row of some label of a single-label target."""
    everywhere = np.unique(strata)
    for split, rows, part in zip(SPLITS, found, parts, strict=True):
        missing = np.setdiff1d(everywhere, strata[rows]) if part > 0 else everywhere[:0]
        if len(missing):
            named = ", ".join(repr(column.labels[n]) for n in missing[:_NAMED]) + _more(missing)
            raise InvalidInput(
                f"the {split} split would have {len(rows)} rows and none of {named}; "
                "give it a larger part with --split, or leave rare labels out with --min-per-label"
            )


def teach_every_label(
    columns: Sequence[LabelColumn], selection: Selection, splits: dict[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    """Move a row to train for each label that train lacks (labels that rows are not balanced by may end up so)."""
    if "train" not in splits:
        return splits
    train = splits["train"]
    moved: list[int] = []
    for column, entries in zip(columns, selection.entries, strict=True):
        inside = np.zeros(len(selection.kept), bool)
        inside[train] = inside[moved] = True
        lacking = (column.counts(inside, entries) == 0) & (column.counts(selection.kept, entries) > 0)
        owners = column.owner[entries & lacking[column.codes] & selection.kept[column.owner]]
        codes = column.codes[entries & lacking[column.codes] & selection.kept[column.owner]]
        moved += owners[np.unique(codes, return_index=True)[1]].tolist()
    if not moved:
        return splits
    extra = np.unique(np.array(moved, np.int64))
    rest = {split: rows[~np.isin(rows, extra)] for split, rows in splits.items() if split != "train"}
    return {"train": np.concatenate([train, extra])} | rest


def _more(found: NDArray[np.int64]) -> str:
    return f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
