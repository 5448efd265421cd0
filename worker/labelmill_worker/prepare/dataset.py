"""The whole preparation: a specification and its files in, split files and their counts out."""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.specs import PrepareSpec
from labelmill.core.readers import BadRow
from labelmill.core.storage.base import ReadableFile
from labelmill_worker.prepare.coverage import check_enough_rows, check_strata_covered, teach_every_label
from labelmill_worker.prepare.output import (
    RowLabels,
    SplitRows,
    count_labels,
    fingerprint_of,
    label_schema_of,
    write_splits,
)
from labelmill_worker.prepare.parse import BAD_ROW, UnusableRow, parser_of
from labelmill_worker.prepare.selection import (
    LabelColumn,
    Selection,
    all_rows,
    apply_cap,
    apply_floor,
    drop_duplicates,
    strata_of,
)
from labelmill_worker.prepare.similar_labels import similar_labels_warning
from labelmill_worker.prepare.source import source_rows
from labelmill_worker.prepare.split import SPLITS, stratified_split
from labelmill_worker.prepare.staging import StagedRows
from labelmill_worker.store.datasets import PreparedDataset

PROGRESS_ROWS = 1000
MAX_REPORTED = 1000  #: Bad rows listed in the report; all are counted.
Progress = Callable[[int], None]  #: Told the rows read so far; may raise to stop.


class _BadRows:
    """Counts every bad row and remembers the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[BadRow] = []

    def __call__(self, bad: BadRow) -> None:
        self.count += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(bad)

    def sentence(self, *, others_are_good: bool) -> str:
        """What is wrong, and what helps: to leave rows out only where others can be read."""
        first = self.first[0]
        remedy = first.remedy or (
            "mend the file, or leave them out with --on-bad-row skip"
            if others_are_good
            else "no row can be read: is this the right file, with the right options?"
        )
        lines = ", ".join(str(bad.line) for bad in self.first[:5] if bad.file == first.file)
        more = ", …" if self.count > 5 else ""
        rows = "row" if self.count == 1 else "rows"
        return f"{self.count} bad {rows} in {first.file}, line {lines}{more} ({first.reason}); {remedy}"


def prepare_dataset(
    spec: PrepareSpec, sources: Sequence[ReadableFile], folder: Path, *, on_progress: Progress
) -> PreparedDataset:
    """Make the dataset `spec` asks for from `sources` (or the hub) and put its files into `folder`, all at once.

    The same rows and options give the same bytes. Raises InvalidInput for what the user can mend, Permanent when the
    disk fails, RemoteUnavailable when the hub does not answer; `folder` is then as it was.
    """
    work = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    for left in folder.parent.glob(f"{folder.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)  # of an attempt whose worker died
    with disk_errors():
        work.mkdir(parents=True)
        try:
            return _prepare(spec, sources, work, folder, on_progress)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _prepare(
    spec: PrepareSpec, sources: Sequence[ReadableFile], work: Path, folder: Path, on_progress: Progress
) -> PreparedDataset:
    bad, dropped = _BadRows(), Counter[str]()
    targets, parse = parser_of(spec)
    read = 0
    with StagedRows(work / "rows.arrow", digests=spec.dedupe) as staged:
        for read, row in enumerate(source_rows(spec, sources, bad), start=1):
            try:
                staged.add(parse(row.values))
            except UnusableRow as unusable:
                if unusable.reason == BAD_ROW:
                    bad(BadRow(row.file, row.line, unusable.detail))
                else:
                    dropped[unusable.reason] += 1
            if read % PROGRESS_ROWS == 0:
                on_progress(read)
        staged.finish()
        on_progress(read)
        if bad.count and spec.on_bad_row == "fail":
            raise InvalidInput(bad.sentence(others_are_good=staged.rows > 0))
        dropped[BAD_ROW] += bad.count
        if not staged.rows:
            raise InvalidInput(_nothing_left(dropped))
        columns = staged.columns(targets)
        unlabelled = [column.name for column in columns if not column.labels]
        if unlabelled:
            raise InvalidInput(f"no row has a label for the target {', '.join(unlabelled)}")
        selection = _select(spec, columns, staged, dropped)
        splits = _split(spec, columns, selection)
        staged_files = work / "files"
        staged_files.mkdir()
        digests = write_splits(staged_files, staged, RowLabels.of(columns, selection), splits)
    on_progress(read)  # the last chance to stop a worker that lost its lease
    shutil.rmtree(folder, ignore_errors=True)  # what a dead worker may have left
    staged_files.rename(folder)
    return PreparedDataset(
        splits={split: len(rows) for split, rows in splits.items()},
        labels=count_labels(columns, selection, splits),
        dropped={reason: count for reason, count in sorted(dropped.items()) if count},
        label_schema=label_schema_of(columns, selection),
        files={split: folder / f"{split}.jsonl" for split in splits},
        fingerprint=fingerprint_of(spec, digests),
        report={
            "rows_read": read,
            "warnings": list(filter(None, (similar_labels_warning(one.name, one.labels) for one in columns))),
            "bad_rows": [{"file": one.file, "line": one.line, "reason": one.reason} for one in bad.first],
        },
    )


def _select(spec: PrepareSpec, columns: list[LabelColumn], staged: StagedRows, dropped: Counter[str]) -> Selection:
    selection = all_rows(columns, staged.rows)
    digests = staged.digests()
    if digests is not None:
        drop_duplicates(selection, digests)
    if spec.min_per_label is not None:
        apply_floor(selection, columns, spec.min_per_label)
    if spec.max_per_label is not None:
        chosen = _balanced_by(columns)
        apply_cap(selection, columns[chosen], selection.entries[chosen], spec.max_per_label, spec.seed)
    dropped.update(selection.dropped)
    if not selection.kept.any():
        raise InvalidInput(_nothing_left(dropped))
    check_enough_rows(columns, selection, spec.split)
    return selection


def _split(spec: PrepareSpec, columns: list[LabelColumn], selection: Selection) -> SplitRows:
    rows = selection.rows()
    chosen = _balanced_by(columns)
    strata = strata_of(columns[chosen], selection.entries[chosen], rows)
    found = stratified_split(strata, spec.split, spec.seed)
    if not columns[chosen].multi:
        check_strata_covered(columns[chosen], strata, found, spec.split)
    splits = {split: rows[positions] for split, positions in zip(SPLITS, found, strict=True) if len(positions)}
    return teach_every_label(columns, selection, splits)


def _balanced_by(columns: list[LabelColumn]) -> int:
    """The target that rows are balanced by: the first single-label one, else the first."""
    return next((number for number, column in enumerate(columns) if not column.multi), 0)


def _nothing_left(dropped: Counter[str]) -> str:
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in dropped.most_common() if count)
    return f"no row is left to make a dataset of; left out were: {reasons}"


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn errors of writing into one sentence: Permanent."""
    try:
        yield
    except OSError as error:
        what = "its disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise Permanent(f"the data folder cannot be written: {what}") from error


__all__ = ["PreparedDataset", "prepare_dataset"]
