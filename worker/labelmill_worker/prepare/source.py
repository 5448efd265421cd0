"""Where rows come from: files inside the data folder, or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.specs import PrepareSpec
from labelmill.core.readers import OnBadRow, Row, known_sources, read_rows
from labelmill.core.storage.base import ReadableFile, Storage, StoredFile
from labelmill.core.storage.references import source_folder
from labelmill_worker.prepare.hub import hub_rows


def wanted_columns(spec: PrepareSpec) -> list[str] | None:
    """The columns a preparation reads, each once; None: all of them."""
    if spec.format == "factory":
        return None
    columns = [spec.text, *(target.column for target in spec.targets), *(column for column, _ in spec.where)]
    return list(dict.fromkeys(columns))


def source_files(storage: Storage, job_id: str, references: Sequence[str]) -> list[StoredFile]:
    """The copies that were made for this job. Raises WorkerUnable for one that is missing, InvalidInput for one that
    lies elsewhere, be it in the data folder: the database and the stack's addresses are there too."""
    files = [storage.file(reference, source_folder(job_id), read_once=True) for reference in references]
    for file in files:
        if not file.exists():
            raise WorkerUnable(
                f"{file.name} is gone from the data folder: mount that folder, or submit the preparation again"
            )
    return files


def source_rows(spec: PrepareSpec, files: Sequence[ReadableFile], on_bad_row: OnBadRow) -> Iterator[Row]:
    """Every row of the source. Raises InvalidInput, or RemoteUnavailable when the hub does not answer."""
    if spec.hf is not None:
        return hub_rows(spec.hf, wanted_columns(spec))
    sources = known_sources(files, spec.formats, spec.reading)
    return read_rows(sources, columns=wanted_columns(spec), on_bad_row=on_bad_row)
