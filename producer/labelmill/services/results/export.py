"""Writing results as JSONL, CSV or Parquet, to a file that is replaced atomically."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from labelmill.contracts.control_characters import visible_json
from labelmill.contracts.errors import InvalidInput, LabelmillError
from labelmill.core.readers import Input
from labelmill.core.storage.base import ReadableFile, StoredFile
from labelmill.core.storage.new_files import is_same_file, replacing
from labelmill.core.storage.remote import RemoteFile, RemoteFiles, RemoteUrl, s3_object
from labelmill.services.results.arrow_batches import require_pyarrow
from labelmill.services.results.csv_files import CsvOptions, write_csv
from labelmill.services.results.formats import JSONL, PARQUET, Output, format_of
from labelmill.services.results.parquet_files import write_parquet
from labelmill.services.results.tables import ResultTable

if TYPE_CHECKING:
    from labelmill.services.results.kept_columns import ReadKept
    from labelmill.services.results.lines import ChunkResults

_PLAIN_CSV = CsvOptions()


class CannotWrite(LabelmillError):
    """The output file cannot be written."""

    code = "cannot_write"


def check_output(output: Output, sources: Iterable[Input] = (), remote: RemoteFiles | None = None) -> None:
    """Raise InvalidInput for a file that results cannot be written to, as far as this is known beforehand, and for one
    of the `sources`, which would be overwritten."""
    if format_of(output) is PARQUET:
        require_pyarrow()
    if any(_is_same(output, source) for source in sources):
        raise InvalidInput(f"{output} is the source itself: write the results to another file", field="output")
    if isinstance(output, RemoteUrl):
        (remote or RemoteFiles()).require_writable(output.url)
        return
    if output.is_dir():
        raise InvalidInput(f"{output} is a folder; name a file in it", field="output")
    if not output.parent.is_dir():
        raise InvalidInput(f"{output} cannot be written: there is no folder {output.parent}", field="output")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise InvalidInput(f"{output} cannot be written: the folder {output.parent} is closed to you", field="output")


def _is_same(output: Output, source: Input) -> bool:
    if isinstance(output, RemoteUrl):
        address = source.address if isinstance(source, StoredFile) else source
        return isinstance(address, str | RemoteFile) and s3_object(str(address)) == s3_object(output.url)
    if isinstance(source, StoredFile):
        return isinstance(source.address, Path) and is_same_file(output, source.address)
    return (isinstance(source, Path) or not isinstance(source, ReadableFile)) and is_same_file(output, source)


def write_results(
    blocks: Iterable[bytes],
    targets: list[str],
    output: Output | None,
    keep: Sequence[str] = (),
    *,
    remote: RemoteFiles | None = None,
    with_scores: bool = True,
    csv: CsvOptions = _PLAIN_CSV,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write rows, blocks of lines of JSON, to a JSONL or CSV file or to stdout. Returns how many.

    `keep`: the columns in their `keep`, which follow the others in CSV. `with_scores`: whether the lines hold scores,
    which have a column there.

    Raises InvalidInput, CannotWrite; for an output in S3 StorageUnavailable, StorageRefused.
    """
    rows = 0

    def counted() -> Iterator[bytes]:
        nonlocal rows
        for lines in blocks:
            yield lines
            count = lines.count(b"\n")
            rows += count
            on_progress(count)

    if output is None:
        _write_jsonl(counted(), _TerminalLines(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer)
        return rows
    with _new_file(output, remote) as stream:
        if format_of(output) is JSONL:
            _write_jsonl(counted(), stream)
        else:
            table = ResultTable(targets, keep, with_scores=with_scores)
            write_csv(_documents(counted()), table, csv, stream)
    return rows


def write_parquet_results(
    chunks: Iterable[ChunkResults],
    table: ResultTable,
    output: Output,
    read_kept: ReadKept | None = None,
    *,
    remote: RemoteFiles | None = None,
) -> int:
    """Write rows to a Parquet file. `read_kept` gives the kept columns of the table, if it has some. Returns the number
    of rows. Raises as `write_results`."""
    with _new_file(output, remote) as stream:
        return write_parquet(chunks, table, stream, read_kept)


@contextmanager
def _new_file(output: Output, remote: RemoteFiles | None) -> Iterator[BinaryIO]:
    """The file to write, which is in its place at the end alone. Raises as `write_results`."""
    check_output(output, remote=remote)
    try:
        with replacing_output(output, remote) as stream:
            yield stream
    except OSError as error:
        raise CannotWrite(f"{output} cannot be written: {error.strerror or error}") from error


def replacing_output(output: Output, remote: RemoteFiles | None) -> AbstractContextManager[BinaryIO]:
    """A file that is in its place at the end alone. Raises OSError, and in S3 StorageUnavailable, StorageRefused."""
    if isinstance(output, RemoteUrl):
        return (remote or RemoteFiles()).writing(output.url)
    return replacing(output)


def _documents(blocks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    return (orjson.loads(line) for lines in blocks for line in lines.splitlines())


class _TerminalLines:
    """Lines of JSON for a terminal: the same values, with control characters escaped."""

    def __init__(self, terminal: BinaryIO) -> None:
        self._terminal = terminal
        self.flush = terminal.flush

    def write(self, lines: bytes) -> int:
        return self._terminal.write(visible_json(lines.decode()).encode())


def _write_jsonl(blocks: Iterable[bytes], stream: BinaryIO | _TerminalLines) -> None:
    for lines in blocks:
        stream.write(lines)
        stream.flush()  # a reader that follows a batch through a pipe gets rows as they come
