"""Rows whose label is probably wrong: a training's own, found by fits that had not seen them, or an evaluation's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.chats import text_of_row, transcript
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.ids import Kind
from labelmill.core.database import reading
from labelmill.core.database.analysis_codec import load_analysis
from labelmill.core.database.tables import DatasetRow, EvaluationRow, TrainingRow
from labelmill.core.storage.base import Storage, StoredFile
from labelmill.core.storage.references import dataset_folder
from labelmill.report.parts import Grid, Part
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import status_document
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.results.csv_files import formula_guard
from labelmill.services.results.export import replacing_output
from labelmill.services.results.formats import Output

SHOWN = 25
COLUMNS = ("row", "target", "label", "predicted", "score", "label_score", "text")
_FORMATS = (".csv", ".jsonl")


def cases_of(analysis: Mapping[str, Any], key: str, caption: str) -> list[Part]:
    """The table of some rows of a target, if there are any."""
    rows = [
        (case["row"], case["label"], case["predicted"], case["score"], case.get("text", ""))
        for case in (analysis.get(key) or [])[:SHOWN]
    ]
    headings = ("row", "label", "answer", "score", "text")
    return [Grid(headings, rows, caption, frozenset({4}))] if rows else []


def suspects_of(analysis: Mapping[str, Any], job_id: str) -> list[Part]:
    """The table of the labels of a target that are probably wrong, and how to get all of them."""
    suspected = analysis.get("suspected", 0)
    total = f"Labels that are probably wrong: {suspected:,} {'row' if suspected == 1 else 'rows'} in all"
    if "all_suspects" in analysis and analysis.get("suspected", 0) > SHOWN:
        total += f" (all of them: labelmill report {job_id} --suspects FILE.csv)"
    return cases_of(analysis, "suspects", total)


@dataclass(frozen=True)
class SuspectsFile:
    """The numbers of lines and rows written."""

    lines: int
    rows: int


def check_suspects_file(output: Output) -> None:
    """Raise InvalidInput for a file whose suffix is not one of the formats."""
    if not output.name.lower().endswith(_FORMATS):
        raise InvalidInput(f"--suspects {output}: they are written as {' or '.join(_FORMATS)}")


def write_suspects(context: ServiceContext, request: JobRequest, output: Output) -> SuspectsFile:
    """Write every row whose label is probably wrong, the surest of each target first, with its number in the split and
    its text. Raises NotFound, InvalidInput."""
    check_suspects_file(output)
    job_id = request.job_id
    with reading(context.engine) as connection:
        kind = status_document(connection, job_id)["kind"]
        targets = load_analysis(connection, job_id).get("targets", {})
        has_suspects = kind in (Kind.TRAINING.value, Kind.EVALUATION.value)
        if not (has_suspects and any("all_suspects" in analysis_of_target for analysis_of_target in targets.values())):
            raise InvalidInput(
                f"{job_id} knows of no suspects: trainings of the method embedding find them, and evaluations"
            )
        split_file = _split_file(connection, context.storage, kind, job_id)
    lines = [
        (row, name, label, predicted, score, label_score)
        for name, analysis_of_target in targets.items()
        for row, label, predicted, score, label_score in analysis_of_target.get("all_suspects", ())
    ]
    texts = _texts(split_file, {line[0] for line in lines})
    filled = [dict(zip(COLUMNS, (*line, texts.get(line[0])), strict=True)) for line in lines]
    try:
        with replacing_output(output, context.remote) as file:
            file.writelines(_csv(filled) if output.name.lower().endswith(".csv") else map(_json, filled))
    except OSError as error:
        raise InvalidInput(f"--suspects {output}: {error.strerror}") from error
    return SuspectsFile(len(lines), len({(line[1], line[0]) for line in lines}))


def _json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line) + b"\n"


def _csv(lines: list[dict[str, Any]]) -> Iterator[bytes]:
    protected = formula_guard(",")
    for cells in (COLUMNS, *(tuple(line.values()) for line in lines)):
        written = io.StringIO()
        csv.writer(written, lineterminator="\r\n").writerow([protected(cell) for cell in cells])
        yield written.getvalue().encode("utf-8", errors="replace")


def _split_file(connection: Connection, storage: Storage, kind: str, job_id: str) -> StoredFile | None:
    if kind == Kind.TRAINING.value:
        dataset_id, split = connection.scalar(select(TrainingRow.dataset_id).where(TrainingRow.id == job_id)), "train"
    else:
        columns = select(EvaluationRow.dataset_id, EvaluationRow.split).where(EvaluationRow.id == job_id)
        dataset_id, split = connection.execute(columns).one()
    dataset = connection.execute(
        select(DatasetRow.id, DatasetRow.repeats, DatasetRow.files).where(DatasetRow.id == dataset_id)
    ).first()
    reference = (dataset.files or {}).get(split) if dataset else None
    if dataset is None or reference is None:
        return None
    return storage.file(reference, dataset_folder(dataset.repeats or dataset.id))


def _texts(split: StoredFile | None, row_numbers: set[int]) -> dict[int, str]:
    """The texts of rows, if the split's file still exists."""
    if split is None or not split.exists():
        return {}
    with split.open("rb") as lines:
        return {
            number: transcript(text_of_row(orjson.loads(line)))
            for number, line in enumerate(lines)
            if number in row_numbers
        }
