"""Copies of the files of a preparation in the data folder, where workers can read them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from labelmill.contracts.errors import Permanent
from labelmill.core.readers import Source
from labelmill.core.storage.data_folder import DataFolder, source_folder

_OF_A_STREAM = "piped"  #: The name of the copy of a stream.


def copy_into_data_folder(
    sources: Sequence[Source], data_dir: str, job_id: str, check: Callable[[Source], None]
) -> tuple[str, ...]:
    """Copy `sources`, all or none. Returns the references to the copies.

    `check` is told of each before it is copied, and of one that can be read but once when it is. Raises what it
    raises; Permanent when the data folder cannot be written.
    """
    for source in sources:
        if isinstance(source.input, Path):
            check(source)
    data = DataFolder.of(data_dir)
    data.make()
    folder = data.path(source_folder(job_id))
    part = folder.with_name(f"{job_id}.part")
    names = [source.input.name if isinstance(source.input, Path) else _OF_A_STREAM for source in sources]
    if len(set(names)) < len(names):
        names = [f"{number:04}-{name}" for number, name in enumerate(names)]
    try:
        part.mkdir(parents=True)
        for source, name in zip(sources, names, strict=True):
            _copy(source, part / name, check)
        data.give_to_owner(part)
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise Permanent(f"the source could not be copied into {data_dir}: {error.strerror or error}") from error
    return tuple(data.reference(folder / name) for name in names)


def digest_of_copies(data_dir: str, references: Sequence[str]) -> str:
    """A digest of the content of all copies, in their order."""
    data = DataFolder.of(data_dir)
    content = hashlib.blake2b(digest_size=16)
    for reference in references:
        with data.path(reference).open("rb") as file:
            content.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return content.hexdigest()


def remove_copies(data_dir: str, job_id: str) -> None:
    """Remove the copies of a preparation that was not accepted."""
    shutil.rmtree(DataFolder.of(data_dir).path(source_folder(job_id)), ignore_errors=True)


def _copy(source: Source, copy: Path, check: Callable[[Source], None]) -> None:
    if isinstance(source.input, Path):
        shutil.copyfile(source.input, copy)
        return
    with copy.open("wb") as file:
        shutil.copyfileobj(source.input, file)
    source.close()
    check(Source(copy, source.name, source.format))
