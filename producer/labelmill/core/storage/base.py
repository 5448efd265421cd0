"""The interface of a storage. `local` and `s3` implement it, and `tests/conformance/test_storages.py` holds them to it.

A reference comes from a table that other users can write to, so a file is opened only if it lies in the folder of its
kind: `datasets/<id>/`, `sources/<job>/` or `models/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, runtime_checkable

from labelmill.contracts.errors import InvalidInput

_SHOWN_CHARS = 200  #: Of a reference, in an error.


@runtime_checkable
class ReadableFile(Protocol):
    """A file that can be read more than once. A `Path` is one."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    def open(self, mode: Literal["rb"], buffering: int = -1) -> BinaryIO:
        """Its bytes. Raises OSError, StorageUnavailable."""


class StoredFile(ABC):
    """A file that a reference names. It may be missing."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    @property
    def name(self) -> str:
        """The last part of the reference."""
        return self.reference.rpartition("/")[2]

    @property
    @abstractmethod
    def address(self) -> Path | str:
        """The path or the URL of the file, as this process sees it."""

    @abstractmethod
    def open(self, mode: Literal["rb"], buffering: int = -1) -> BinaryIO:
        """Its bytes. Raises OSError where it is missing, StorageUnavailable, StorageRefused."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is such a file. Raises StorageUnavailable, StorageRefused."""

    @abstractmethod
    def on_disk(self) -> AbstractContextManager[Path]:
        """A local file with the same bytes. Raises as `open` does."""


class NewFolder(ABC):
    """A folder that is being written."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A new file in it. Raises OSError, StorageUnavailable."""

    @abstractmethod
    def file(self, name: str) -> ReadableFile:
        """A file that was written, before the folder is complete."""

    @abstractmethod
    def reference(self, name: str) -> str:
        """The reference of a file, once the folder is complete."""


@dataclass(frozen=True)
class Entry:
    """A file or a folder in one of the storage's folders. `modified_at`: seconds since 1970, of its newest part."""

    reference: str
    modified_at: float


@dataclass(frozen=True)
class Measured:
    """The number of files, and their total size."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.files + other.files, self.bytes + other.bytes)


class Storage(ABC):
    """The root of all files, as this process reaches it.

    Every write is atomic: a file is there whole or not at all, whenever its writer dies. All methods raise
    StorageUnavailable and StorageRefused where the storage is not on this machine.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Make the root ready to be written to. Raises Permanent."""

    @abstractmethod
    def check(self) -> None:
        """Write, read and delete a file. Raises OSError."""

    @abstractmethod
    def file(self, reference: str, folder: str, *, sha256: str | None = None, read_once: bool = False) -> StoredFile:
        """The file that a reference names, which must lie in `folder`.

        `sha256`: of the bytes that are wanted. `read_once`: no local copy is worth keeping. Raises InvalidInput when
        the file lies elsewhere, or is not a regular file.
        """

    @abstractmethod
    def writing(self, reference: str) -> AbstractContextManager[BinaryIO]:
        """A file that replaces what the reference names at the end, and vanishes after an error. Raises OSError."""

    @abstractmethod
    def new_folder(self, reference: str) -> AbstractContextManager[NewFolder]:
        """A folder of new files, which are all there at the end, or none after an error. Raises OSError."""

    @abstractmethod
    def put_folder(self, folder: Path, reference: str) -> dict[str, str]:
        """Move the files of a folder, made in a workspace, into the storage, in the place of an earlier attempt's.
        Returns name → reference. Raises OSError."""

    @abstractmethod
    def keep_only(self, folder: str, references: set[str]) -> None:
        """Delete what other attempts left in a folder."""

    @abstractmethod
    def workspace(self, beside: str) -> AbstractContextManager[Path]:
        """An empty local folder in which `beside` is made; it is deleted at the end. Raises OSError."""

    @abstractmethod
    def entries(self, folder: str) -> Iterator[Entry]:
        """What lies directly in `datasets`, `sources` or `models`, unfinished writes too."""

    @abstractmethod
    def measure(self, reference: str) -> Measured:
        """The size of a file or of all files in a folder. Nothing where there is none."""

    @abstractmethod
    def delete(self, reference: str) -> Measured:
        """Delete a file or a folder with all that lies in it, and what an unfinished write of it left."""

    @abstractmethod
    def leftovers(self, reference: str) -> list[str]:
        """References to files that killed writers of a file or a folder left."""

    @abstractmethod
    def delete_leftovers(self, reference: str) -> None:
        """Delete what killed writers of a file or a folder left. A writer that is only asleep fails."""

    @abstractmethod
    def shown(self, reference: str) -> str:
        """Where the file lies for people on this host. Opens nothing."""


def refused_reference(reference: object, folder: str) -> InvalidInput:
    """For a reference that leads out of the folder of its kind."""
    return InvalidInput(
        f"{str(reference)[:_SHOWN_CHARS]!r} is not a file inside the data folder's {folder}/, so it is not opened"
    )
