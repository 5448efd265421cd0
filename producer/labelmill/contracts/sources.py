"""What a program may hand over as a source, as types.

Classes of other libraries are described by what they have, so that none of them needs to be installed.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias


class ArrowTable(Protocol):
    """A table that offers its columns to others: of Polars, pyarrow, pandas 2.2 and later."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class PandasTable(Protocol):
    """A `pandas.DataFrame`."""

    @property
    def iloc(self) -> object: ...


class HubTable(Protocol):
    """A `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]: ...

    @property
    def num_rows(self) -> int: ...


#: One row: a text, or columns by name.
SourceRow: TypeAlias = str | Mapping[str, object]
#: A path or glob, rows, or a table.
Source: TypeAlias = str | os.PathLike[str] | Iterable[SourceRow] | ArrowTable | PandasTable | HubTable
#: The same, or rows that come asynchronously.
AsyncSource: TypeAlias = Source | AsyncIterable[SourceRow]


class PassedOn(Iterator[object]):
    """Rows of a source that come through another object. `source_name`: what messages call the source."""

    source_name: str


def name_of_source(source: object) -> str:
    """What messages call the rows of a program: the name of their class."""
    return source.source_name if isinstance(source, PassedOn) else f"<{type(source).__name__}>"
