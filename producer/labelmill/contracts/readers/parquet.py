"""Parquet files, one batch of rows in memory at a time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.readers.bad_rows import Unreadable

BATCH_ROWS = 4096


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises InvalidInput without pyarrow, and for a file that is none."""
    try:
        # imported by name: pyarrow takes a while, is an extra, and has no types
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidInput('reading Parquet needs pyarrow: pip install "labelmill[parquet]"') from error
    try:
        return parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"{path.name} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def parquet_columns(path: Path) -> list[str]:
    """The names of the file's columns."""
    with open_parquet(path) as file:
        return list(file.schema_arrow.names)


def read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, list[Any]]]:
    """Batches of columns as Python values."""
    pyarrow = importlib.import_module("pyarrow")
    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=None if columns is None else list(columns)):
                yield _values_of(batch)
        except (pyarrow.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path.name} is damaged: {str(error).splitlines()[0]}") from error


def _values_of(batch: Any) -> dict[str, list[Any]]:
    try:
        return dict(batch.to_pydict())
    except (ValueError, ArithmeticError):  # a date beyond the year 9999, or bytes that are not UTF-8, in some cell
        return {
            name: list(map(_value_of, column)) for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }


def _value_of(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, ArithmeticError) as error:
        return Unreadable(str(error).partition("\n")[0])
