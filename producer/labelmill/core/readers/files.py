"""Finding the files of a source, and opening them."""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import stat
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from labelmill.contracts.bounds import plain, shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import FileFormat
from labelmill.core.readers.encodings import as_utf8
from labelmill.core.storage.base import ReadableFile
from labelmill.core.storage.remote import RemoteFiles, is_url

Input = ReadableFile | BinaryIO  #: A stream, such as standard input, is read once.

BUFFER_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Source:
    """One input and its format. A stream is already unpacked."""

    input: Input
    name: str  #: In messages.
    format: FileFormat
    opened: BinaryIO | None = None  #: To be closed after the stream was read.

    def close(self) -> None:
        """Close a pipe that was read."""
        if self.opened is not None:
            self.opened.close()


def inputs_of(source: str, remote: RemoteFiles | None = None) -> list[Input]:
    """The inputs that a source names: files, a pipe, files behind URLs that `remote` may open, or `-` for standard
    input. Raises InvalidInput, StorageUnavailable, StorageRefused."""
    if is_url(source):
        try:
            return list((remote or RemoteFiles()).expand(source))
        except InvalidInput as error:
            error.field = error.field or "source"  # storages do not know whose address it is
            raise
    return [sys.stdin.buffer] if source == "-" else list(expand_source(source))


def expand_source(source: str) -> list[Path]:
    """The files of a path or glob, sorted. Raises InvalidInput when there are none."""
    try:
        files = _files_of(source)
    except (OSError, ValueError, RuntimeError):  # not a valid path, or the home of an unknown user
        files = []
    if not files:
        what = "no file matches" if glob.has_magic(source) else "there is no file"
        raise InvalidInput(f"{what} {plain(source) if source.strip() else shown(source)}", field="source")
    return files


def _files_of(source: str) -> list[Path]:
    if not source.strip():
        return []  # an empty path is not meant as the folder that it stands for
    path = Path(source).expanduser()
    if path.is_file() or is_pipe(path):  # before globbing: names may hold brackets
        return [path]
    if path.is_dir():
        pattern = f"{source.rstrip('/')}/*.jsonl"
        raise InvalidInput(f"{source} is a folder; name a file, or a pattern such as {pattern}", field="source")
    names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
    return sorted(Path(name) for name in names if Path(name).is_file())


def is_pipe(path: ReadableFile) -> bool:
    """Whether a path leads to a pipe, as a shell's `<(…)` does: it is read once."""
    if not isinstance(path, Path):
        return False
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def display_name(source: Input) -> str:
    """The name of an input in messages."""
    if not isinstance(source, ReadableFile):
        return "<stdin>"
    return str(source) if is_pipe(source) else source.name


@contextlib.contextmanager
def open_bytes(source: Source) -> Iterator[BinaryIO]:
    """The bytes of an input, unpacked and, of text, in UTF-8. Raises InvalidInput for a file that cannot be read or is
    cut short."""
    with faults_of_reading(source.name), contextlib.ExitStack() as opened:
        if isinstance(source.input, ReadableFile):
            stream = unpacked(opened.enter_context(source.input.open("rb", buffering=BUFFER_BYTES)))
        else:
            stream = source.input
            opened.callback(source.close)
        yield as_utf8(stream, source.format.encoding)


@contextlib.contextmanager
def faults_of_reading(name: str) -> Iterator[None]:
    """Turn errors of opening, reading and unpacking into InvalidInput."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{name} is damaged: {str(error).rstrip('.')}") from error
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no file {name}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error


def unpacked(raw: BinaryIO) -> BinaryIO:
    """The stream, unpacked where it is gzip."""
    start, raw = with_start(raw, len(_GZIP_MAGIC))
    if start != _GZIP_MAGIC:
        return raw
    packed = gzip.GzipFile(fileobj=raw)
    return cast("BinaryIO", io.BufferedReader(packed, BUFFER_BYTES))


def with_start(stream: BinaryIO, size: int) -> tuple[bytes, BinaryIO]:
    """The first bytes of a stream, and a stream that still begins with them."""
    if isinstance(getattr(stream, "raw", None), io.FileIO) and stream.seekable():
        at = stream.tell()
        start = stream.read(size)
        stream.seek(at)
        return start, stream
    start = stream.read(size)
    return start, cast("BinaryIO", io.BufferedReader(_Rejoined(start, stream), BUFFER_BYTES))


class _Rejoined(io.RawIOBase):
    """A stream whose start was already read."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._start[: len(buffer)] or self._rest.read(len(buffer))
        self._start = self._start[len(part) :]
        buffer[: len(part)] = part
        return len(part)
