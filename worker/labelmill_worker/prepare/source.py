"""Where rows come from: files inside the data folder, or the Hugging Face hub."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from labelmill.contracts.errors import InvalidInput, RemoteUnavailable
from labelmill.contracts.hub_reference import split_hub_reference
from labelmill.contracts.readers import OnBadRow, Row, check_columns, read_rows
from labelmill.contracts.specs import PrepareSpec
from labelmill.contracts.storage import DataFolder, source_folder

Decoder = Callable[[Any], Any]


def wanted_columns(spec: PrepareSpec) -> list[str] | None:
    """The columns a preparation reads, each once; None: all of them."""
    if spec.format == "factory":
        return None
    columns = [spec.text, *(target.column for target in spec.targets), *(column for column, _ in spec.where)]
    return list(dict.fromkeys(columns))


def source_files(data: DataFolder, job_id: str, references: Sequence[str]) -> list[Path]:
    """The copies that were made for this job. Raises InvalidInput for one that is missing or lies elsewhere, be it in
    the data folder: the database and the stack's addresses are there too."""
    files = [data.file(reference, source_folder(job_id)) for reference in references]
    for file in files:
        if not file.is_file():
            raise InvalidInput(f"{file.name} is gone from the data folder; submit the preparation again")
    return files


def source_rows(spec: PrepareSpec, files: Sequence[Path], on_bad_row: OnBadRow) -> Iterator[Row]:
    """Every row of the source. Raises InvalidInput, or RemoteUnavailable when the hub does not answer."""
    if spec.hf is not None:
        return _hub_rows(spec.hf, wanted_columns(spec))
    return read_rows(files, columns=wanted_columns(spec), on_bad_row=on_bad_row)


def _hub_rows(reference: str, columns: list[str] | None) -> Iterator[Row]:
    datasets = importlib.import_module("datasets")  # takes seconds to import; untyped
    errors = importlib.import_module("datasets.exceptions")
    repository, config = split_hub_reference(reference)
    # the library prefers a folder of that name, wherever the worker was started
    if Path(repository).exists():
        raise InvalidInput(f"hf:{repository} is the name of a folder on the worker's machine, so it is not opened")
    try:
        parts = datasets.load_dataset(repository, config, streaming=True)
        # Other splits stay out of it, so that nobody tests on what was trained on
        split = "train" if "train" in parts else next(iter(parts))
        rows = parts[split]
        features = rows.features or {}
        if features and columns is not None:
            check_columns(f"hf:{reference}", features, columns)
            rows = rows.select_columns(columns)
        decoders = {name: decoder for name, kind in features.items() if (decoder := _decoder(kind))}
        for line, values in enumerate(rows, start=1):
            if line == 1 and columns is not None:
                check_columns(f"hf:{reference}", values, columns)
            for name, decoder in decoders.items():
                if values.get(name) is not None:
                    values[name] = decoder(values[name])
            yield Row(f"hf:{reference}", line, values)
    except errors.DatasetNotFoundError as error:
        raise InvalidInput(f"the Hugging Face hub has no dataset {repository}, or it is not public") from error
    except (ConnectionError, TimeoutError) as error:
        raise RemoteUnavailable(f"the Hugging Face hub cannot be reached to read {repository}") from error
    except (errors.DatasetsError, ValueError) as error:
        raise InvalidInput(f"hf:{reference} cannot be read: {_first_line(error)}") from error


def _decoder(kind: Any) -> Decoder | None:
    """Class numbers become their names."""
    inner = getattr(kind, "feature", None)
    if hasattr(kind, "int2str"):
        # -1 is how published test sets mark rows whose label is kept back
        return lambda number: kind.int2str(number) if number >= 0 else None
    if inner is not None and hasattr(inner, "int2str"):
        return lambda numbers: [inner.int2str(number) for number in numbers]
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
