"""Finding the files of a source, knowing their format, and opening them."""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from labelmill.contracts.bounds import plain
from labelmill.contracts.errors import InvalidInput

Format = Literal["jsonl", "csv", "parquet"]
Input = Path | BinaryIO  #: A stream (standard input) always holds JSONL.

BUFFER_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  #: Its byte order marks, which spreadsheets write as "Unicode text".
_BY_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip


def expand_source(source: str) -> list[Path]:
    """The files of a path or glob, sorted. Raises InvalidInput when there are none, or one cannot be read."""
    try:
        found = _files_of(source)
    except (OSError, ValueError, RuntimeError):  # what cannot be a path, or the home of nobody
        found = []
    if not found:
        what = "no file matches" if glob.has_magic(source) else "there is no file"
        raise InvalidInput(f"{what} {plain(source)}")
    for file in found:
        format_of(file)
    return found


def _files_of(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():  # before globbing: names may hold brackets
        return [path]
    if path.is_dir():
        raise InvalidInput(f"{source} is a folder; name a file, or a pattern such as {source.rstrip('/')}/*.jsonl")
    names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
    return sorted(Path(name) for name in names if Path(name).is_file())


def display_name(source: Input) -> str:
    """How messages call an input."""
    return source.name if isinstance(source, Path) else "<stdin>"


def format_of(path: Path) -> Format:
    """The format by suffix, else by content. Raises InvalidInput when it is none of ours."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    known = _BY_SUFFIX.get(suffixes[-1]) if suffixes else None
    return known or _format_by_content(path)


def _format_by_content(path: Path) -> Format:
    with open_bytes(path) as stream:
        start = stream.read(4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.removeprefix(BOM).lstrip().startswith(b"{"):
        return "jsonl"
    if not start:
        raise InvalidInput(f"{path.name} is empty")
    raise InvalidInput(f"{path.name} is in no format known here: write .jsonl, .csv or .parquet (also .gz)")


@contextlib.contextmanager
def open_bytes(source: Input) -> Iterator[BinaryIO]:
    """The bytes of an input, unpacked. Raises InvalidInput for a file that cannot be read or is cut short."""
    if not isinstance(source, Path):
        yield source
        return
    try:
        with source.open("rb", buffering=BUFFER_BYTES) as raw:
            start = raw.read(2)
            if start in _UTF16:
                raise InvalidInput(f"{source.name} is UTF-16: save it as UTF-8")
            raw.seek(0)
            if start != _GZIP_MAGIC:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as packed:
                yield io.BufferedReader(packed, BUFFER_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{source.name} is damaged: {str(error).rstrip('.')}") from error
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no file {source}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror}") from error
