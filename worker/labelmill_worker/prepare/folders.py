"""Which files a preparation may read, and where its own go: nothing outside of the data folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.settings import Settings


def data_folder(settings: Settings) -> Path:
    """The data folder. Raises InvalidInput for a URL."""
    if "://" in settings.data_dir:
        raise InvalidInput("preparing needs a data folder that producer and workers share, not a URL, for now")
    return settings.data_path.absolute()


def source_files(folder: Path, job_id: str, files: Sequence[str]) -> list[Path]:
    """The copies that were made for this job. Raises InvalidInput for one that is missing or lies elsewhere, be it in
    the data folder: the database and the stack's addresses are there too."""
    root = folder.resolve()
    own = root / "sources" / job_id
    found = []
    for file in files:
        path = (root / file).resolve()  # links followed: they must not lead out either
        if not path.is_relative_to(own):
            raise InvalidInput(f"{file} is not inside the data folder's place for this job, so it is not opened")
        if not path.is_file():
            raise InvalidInput(f"{path.name} is gone from the data folder; submit the preparation again")
        found.append(path)
    return found


def dataset_folder(folder: Path, job_id: str) -> Path:
    """Where a dataset's files go."""
    return folder / "datasets" / job_id


def drop_sources(folder: Path, job_id: str) -> None:
    """Remove the copies made for one job; nobody reads them once it has ended."""
    shutil.rmtree(folder / "sources" / job_id, ignore_errors=True)
