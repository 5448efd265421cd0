"""Local copies of files that lie elsewhere: bounded, shared by the processes of a user, oldest use deleted first."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from labelmill.contracts.errors import StorageRefused
from labelmill.core.storage.new_files import make_private_folder

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_PART, _LOCK, _WORK = ".part", ".lock", "work-"
_DOWNLOAD_S = 3600.0  #: A part that nothing was written to for so long is of a dead process.
_UNUSED_S = 24 * 3600.0  #: A copy that nobody read for so long goes: its file may have been purged.

Download = Callable[[BinaryIO], None]


class FileCache:
    """A folder of copies. `max_bytes` bounds all of them together; what is larger is not kept."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def open(self, version: str, size_of: Callable[[], int], download: Download) -> BinaryIO | None:
        """A copy of the file of this version, which `download` writes where there is none.

        None: there is no room for it, perhaps because others download, or the disk is full. `version` names the bytes:
        another content must have another one. Raises OSError, StorageRefused, and what `size_of` and `download` raise.
        """
        self._require_own_folder()
        path = self.folder / _name_of(version)
        with contextlib.suppress(FileNotFoundError):
            copy = path.open("rb")
            os.utime(path)  # the time of its last use
            return copy
        size = size_of()
        if size > self.max_bytes:
            return None
        part = self.folder / f"{path.name}.{secrets.token_hex(4)}{_PART}"
        stream = self._reserved(part, size)
        if stream is None:
            return None
        try:
            download(stream)
            stream.flush()
            os.truncate(stream.fileno(), stream.tell())
            part.replace(path)
        except BaseException as error:
            with contextlib.suppress(OSError):  # it may hold bytes that the disk does not take
                stream.close()
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
                return None
            raise
        stream.seek(0)
        return stream

    def _reserved(self, part: Path, size: int) -> BinaryIO | None:
        """A new file of this size, for which room was made; None: downloads of others leave too little. One process at
        a time counts and takes its room, or several would take the same."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not self._make_room(size):
                return None
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stream = os.fdopen(handle, "w+b")
            try:
                os.truncate(handle, size)  # counts at once in what others see
            except BaseException:
                stream.close()
                part.unlink(missing_ok=True)
                raise
            return stream
        finally:
            os.close(folder)

    def forget(self, version: str) -> None:
        """Delete the copy of a version."""
        (self.folder / _name_of(version)).unlink(missing_ok=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder, deleted at the end; those of processes that died are deleted too. Not counted in the
        bound."""
        self._require_own_folder()
        self._delete_abandoned()
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_WORK, dir=self.folder))
            lock = folder.with_name(f"{folder.name}{_LOCK}")
            with lock.open("w") as held:
                if not _is_locked_now(held):
                    continue  # another process took the folder for an abandoned one
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.unlink(missing_ok=True)
            return

    def _delete_abandoned(self) -> None:
        for lock in self.folder.glob(f"{_WORK}*{_LOCK}"):
            with contextlib.suppress(OSError), lock.open("r+") as held:
                if _is_locked_now(held):
                    shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK)), ignore_errors=True)
                    lock.unlink(missing_ok=True)

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes fit, after the deletion of copies that were not used for long."""
        copies, now = sorted(self._copies()), time.time()
        total = sum(copy_size for _, copy_size, _ in copies)
        for used_at, copy_size, path in copies:
            if total + size <= self.max_bytes and now - used_at < _UNUSED_S:
                break
            if path.name.endswith(_PART) and now - used_at < _DOWNLOAD_S:
                continue
            path.unlink(missing_ok=True)  # whoever reads it has it open
            total -= copy_size
        return total + size <= self.max_bytes

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and not path.name.endswith(_LOCK):
                    yield found.st_mtime, found.st_size, path

    def _require_own_folder(self) -> None:
        """Raises StorageRefused for a folder that another user can write to: models are read from it."""
        try:
            make_private_folder(self.folder)
            found = self.folder.lstat()
        except OSError as error:
            raise StorageRefused(f"the cache {self.folder} cannot be made: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StorageRefused(
                f"the cache {self.folder} is not a folder that this user alone can write to: choose another "
                "LABELMILL_CACHE_DIR"
            )


def _is_locked_now(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _name_of(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()
