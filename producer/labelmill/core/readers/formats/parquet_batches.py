"""Parquet files, one batch of rows in memory at a time."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import Unreadable
from labelmill.core.readers.files import BUFFER_BYTES, Source, open_bytes
from labelmill.core.storage.base import ReadableFile

BATCH_ROWS = 4096
_MAGIC = b"PAR1"


@contextlib.contextmanager
def open_parquet(source: Source) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`. Raises InvalidInput without pyarrow, and for a file that is not Parquet.

    A packed file or a pipe is first copied to a temporary file, because the end of a Parquet file is read first.
    """
    try:
        # imported by name: pyarrow takes a while, is an extra, and has no types
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidInput('reading Parquet needs pyarrow: pip install "labelmill[parquet]"') from error
    with contextlib.ExitStack() as opened:
        place: Any = _plain_file(source, opened)
        if place is None:
            place = opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(opened.enter_context(open_bytes(source)), place, BUFFER_BYTES)
        try:
            file = opened.enter_context(parquet.ParquetFile(place, memory_map=isinstance(place, Path)))
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise InvalidInput(f"{source.name} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
        yield file


def _plain_file(source: Source, opened: contextlib.ExitStack) -> Path | BinaryIO | None:
    if not isinstance(source.input, ReadableFile):
        return None
    file = opened.enter_context(source.input.open("rb"))
    if not file.seekable() or file.read(len(_MAGIC)) != _MAGIC:
        return None
    file.seek(0)
    return source.input if isinstance(source.input, Path) else file


def parquet_columns(file: Any) -> list[str]:
    """The names of the file's columns."""
    return list(file.schema_arrow.names)


def read_parquet(file: Any, name: str, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
    """Batches of the columns, which have one name each, as Python values."""
    pyarrow = importlib.import_module("pyarrow")
    try:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            yield [values_of(batch.column(column)) for column in columns]
    except (pyarrow.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name} is damaged: {str(error).splitlines()[0]}") from error


def values_of(column: Any) -> list[Any]:
    """The cells of an Arrow column as Python values."""
    try:
        return list(column.to_pylist())
    except (ValueError, ArithmeticError):  # a date beyond the year 9999, or bytes that are not UTF-8, in some cell
        return list(map(_value_of, column))


def _value_of(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, ArithmeticError) as error:
        return Unreadable(str(error).partition("\n")[0])
