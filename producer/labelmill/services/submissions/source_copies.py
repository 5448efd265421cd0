"""Copies of the files of a preparation in the storage, where workers can read them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from labelmill.contracts.errors import Permanent
from labelmill.core.readers import Source
from labelmill.core.storage.base import NewFolder, ReadableFile, Storage
from labelmill.core.storage.references import source_folder

_OF_A_STREAM = "piped"  #: The name of the copy of a stream.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Copies:
    """`references` to the copies; `digest`: of the content of all of them, in their order."""

    references: tuple[str, ...] = ()
    digest: str = hashlib.blake2b(digest_size=16).hexdigest()


def copy_into_storage(
    sources: Sequence[Source], storage: Storage, job_id: str, check: Callable[[Source], None]
) -> Copies:
    """Copy `sources`, all or none.

    `check` is told of each before it is copied, and of one that can be read but once when it is. Raises what it
    raises; Permanent when the storage cannot be written.
    """
    for source in sources:
        if isinstance(source.input, ReadableFile):
            check(source)
    storage.prepare()
    names = [source.input.name if isinstance(source.input, ReadableFile) else _OF_A_STREAM for source in sources]
    if len(set(names)) < len(names):
        names = [f"{number:04}-{name}" for number, name in enumerate(names)]
    content = hashlib.blake2b(digest_size=16)
    try:
        with storage.new_folder(source_folder(job_id)) as folder:
            for source, name in zip(sources, names, strict=True):
                content.update(_copy(source, folder, name, check))
        return Copies(tuple(folder.reference(name) for name in names), content.hexdigest())
    except OSError as error:
        root = storage.shown("").rstrip("/")
        raise Permanent(f"the source could not be copied into {root}: {error.strerror or error}") from error


def _copy(source: Source, folder: NewFolder, name: str, check: Callable[[Source], None]) -> bytes:
    """The digest of what was copied."""
    if isinstance(source.input, ReadableFile):
        with source.input.open("rb") as original, folder.writing(name) as copy:
            return _copy_blocks(original, copy)
    with folder.writing(name) as copy:
        digest = _copy_blocks(source.input, copy)
    source.close()
    check(Source(folder.file(name), source.name, source.format))
    return digest


def _copy_blocks(original: BinaryIO, copy: BinaryIO) -> bytes:
    content = hashlib.blake2b()
    while block := original.read(_BLOCK_BYTES):
        content.update(block)
        copy.write(block)
    return content.digest()
