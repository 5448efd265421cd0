"""Rows that a program hands over in place of a file: `iterables` of texts or mappings, `tables` of pandas, Polars,
Arrow and Hugging Face. None of these libraries is imported here: an object of theirs shows that it is there already.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterable, Iterable, Mapping

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.python_rows.base import PythonRows
from labelmill.core.readers.python_rows.iterables import IterableRows
from labelmill.core.readers.python_rows.tables import table_rows

__all__ = ["PythonRows", "given_source"]


def given_source(source: object) -> str | PythonRows:
    """What a program hands over as a source: a path, or rows. Raises InvalidInput for anything else."""
    if isinstance(source, str):
        return source
    if isinstance(source, os.PathLike):
        path = os.fspath(source)
        return path if isinstance(path, str) else os.fsdecode(path)
    if isinstance(source, PythonRows):
        return source
    if (table := table_rows(source)) is not None:
        return table
    kind = type(source).__name__
    if isinstance(source, Mapping):
        raise InvalidInput(f"a {kind} is one row: hand over a list of them", field="source")
    if isinstance(source, io.IOBase):
        raise InvalidInput("name a file by its path, and do not open it", field="source")
    if isinstance(source, bytes | bytearray) or not isinstance(source, Iterable):
        asynchronous = ": an AsyncClient takes asynchronous iterables" if isinstance(source, AsyncIterable) else ""
        raise InvalidInput(f"a {kind} is not a path, nor rows that can be iterated over{asynchronous}", field="source")
    return IterableRows(source)
