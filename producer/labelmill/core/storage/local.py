"""A folder that producers and workers share."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from labelmill.contracts.errors import Permanent
from labelmill.core.storage.base import Entry, Measured, NewFolder, Storage, StoredFile, refused_reference
from labelmill.core.storage.new_files import make_private_folder, replacing


class LocalFile(StoredFile):
    """A file in the folder."""

    def __init__(self, reference: str, path: Path) -> None:
        super().__init__(reference)
        self.path = path

    @property
    def address(self) -> Path:
        return self.path

    def open(self, mode: Literal["rb"], buffering: int = -1) -> BinaryIO:
        return self.path.open(mode, buffering)

    def exists(self) -> bool:
        return self.path.is_file()

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        yield self.path


class LocalStorage(Storage):
    """The folder as this process sees it; `root` is absolute."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def prepare(self) -> None:
        try:
            make_private_folder(self.root)
        except OSError as error:
            raise Permanent(f"the data folder {self.root} cannot be made: {error.strerror}") from error

    def check(self) -> None:
        with tempfile.TemporaryFile(dir=self.root) as file:
            file.write(b"x")
            file.flush()

    def file(self, reference: str, folder: str, *, sha256: str | None = None, read_once: bool = False) -> LocalFile:
        del sha256, read_once  # nothing is copied
        parent = self.root.resolve() / folder
        # TypeError: not a string; the others: a loop of links, a NUL byte, a name that is too long
        with contextlib.suppress(TypeError, OSError, RuntimeError, ValueError):
            path = (self.root / reference).resolve()
            if path != parent and path.is_relative_to(parent) and _is_file_or_missing(path):
                return LocalFile(reference, path)
        raise refused_reference(reference, folder)

    @contextlib.contextmanager
    def writing(self, reference: str) -> Iterator[BinaryIO]:
        path = self.root / reference
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            yield stream

    @contextlib.contextmanager
    def new_folder(self, reference: str) -> Iterator[NewFolder]:
        part = self.root / f"{reference}.part"
        part.mkdir(parents=True)
        try:
            yield _NewLocalFolder(part, reference)
            self._give_to_owner(part)
            part.rename(self.root / reference)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def put_folder(self, folder: Path, reference: str) -> dict[str, str]:
        target = self.root / reference
        folder.stat()  # an attempt that was frozen may find its own folder gone, and replaces nothing with nothing
        shutil.rmtree(target, ignore_errors=True)  # what a dead worker may have left
        folder.rename(target)
        return {path.name: f"{reference}/{path.name}" for path in target.iterdir()}

    def keep_only(self, folder: str, references: set[str]) -> None:
        """Nothing to do: `put_folder` replaces the whole folder."""

    @contextlib.contextmanager
    def workspace(self, beside: str) -> Iterator[Path]:
        self.delete_leftovers(beside)  # of an attempt whose worker died
        folder = self.root / f"{beside}.{secrets.token_hex(4)}.part"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def entries(self, folder: str) -> Iterator[Entry]:
        try:
            paths = sorted((self.root / folder).iterdir())
        except OSError:
            return  # the folder does not exist here
        for path in paths:
            with contextlib.suppress(OSError):
                yield Entry(f"{folder}/{path.name}", path.lstat().st_mtime)

    def measure(self, reference: str) -> Measured:
        path = self.root / reference
        measured = Measured()
        for file in [path] if path.is_file() or path.is_symlink() else path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                measured += Measured(1, file.stat().st_size)
        return measured

    def delete(self, reference: str) -> Measured:
        path, measured = self.root / reference, self.measure(reference)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return measured

    def leftovers(self, reference: str) -> list[str]:
        folder, _, name = reference.rpartition("/")
        return [f"{folder}/{path.name}" for path in (self.root / folder).glob(f"*{name}.*part")]

    def delete_leftovers(self, reference: str) -> None:
        for left in self.leftovers(reference):
            self.delete(left)

    def shown(self, reference: str) -> str:
        return f"{self.root}/{reference}"

    def _give_to_owner(self, path: Path) -> None:
        """Change the owner of what root wrote at `path` to the root folder's owner, so that workers of that user can
        read it. Does nothing for other users. Raises OSError."""
        owner = self.root.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        above = [folder for folder in path.parents if folder.is_relative_to(self.root) and folder != self.root]
        for written in (*above, path, *path.rglob("*")):
            os.chown(written, owner.st_uid, owner.st_gid, follow_symlinks=False)


class _NewLocalFolder(NewFolder):
    def __init__(self, part: Path, reference: str) -> None:
        self._part = part
        self._reference = reference

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        with (self._part / name).open("wb") as stream:
            yield stream

    def file(self, name: str) -> Path:
        return self._part / name

    def reference(self, name: str) -> str:
        return f"{self._reference}/{name}"


def _is_file_or_missing(path: Path) -> bool:
    """Raises OSError for a path that cannot be read, such as a loop of links, which Python 3.13's `resolve` accepts."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
