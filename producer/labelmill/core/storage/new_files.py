"""Creating files and folders: atomically, not through symbolic links, and private unless sharing is intended."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_DEVICES = ("/dev", "/proc")  #: Where names are not files to be replaced: `/dev/stdout` is a link there.


@contextlib.contextmanager
def replacing(output: Path) -> Iterator[BinaryIO]:
    """A file that replaces `output` at the end, and is removed after an error.

    Until then it has an unpredictable name in the same folder, so that nobody can prepare a link of that name. A device
    or a pipe is written to directly. Raises OSError.
    """
    if _is_device(output):
        with output.open("wb") as stream:
            yield stream
        return
    unfinished = output.with_name(f".{output.name[:40]}.{secrets.token_hex(8)}.part")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_device(output: Path) -> bool:
    if os.path.abspath(output).startswith(tuple(f"{folder}/" for folder in _DEVICES)):  # noqa: PTH100 - links stay links
        return True
    return output.exists() and not output.is_file()


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, whatever the umask; an existing one is left unchanged.

    Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(_PRIVATE_FOLDER)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(_PRIVATE_FOLDER)


def make_private_file(file: Path) -> None:
    """Make an empty file that only its owner may read, whatever the umask; an existing one is left unchanged.

    Raises OSError.
    """
    with contextlib.suppress(FileExistsError):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            os.fchmod(handle, _PRIVATE_FILE)
        finally:
            os.close(handle)


def is_same_file(path: Path, other: Path | BinaryIO) -> bool:
    """Whether a path is the same file as another path, under a different spelling or through links, or as the file that
    a stream reads."""
    try:
        return os.path.samestat(path.stat(), other.stat() if isinstance(other, Path) else os.fstat(other.fileno()))
    except OSError:
        return False  # there is no such file, or no file behind the stream
