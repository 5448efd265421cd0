"""Reading several inputs as one stream of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import OnBadRow
from labelmill.core.readers.detection import detect_sources
from labelmill.core.readers.files import Input, Source
from labelmill.core.readers.formats import FORMATS
from labelmill.core.readers.unreadable import Counting, naming_what_is_read


class Row(NamedTuple):
    """One row and its place in a file. `line` counts from 1; in Parquet it is the row's number."""

    file: str
    line: int
    values: dict[str, Any]


def read_rows(
    inputs: Iterable[Input | Source], *, columns: Sequence[str] | None, on_bad_row: OnBadRow
) -> Iterator[Row]:
    """Every row of `inputs`, in order. Rows that cannot be read go to `on_bad_row`, which may raise.

    `columns` must be there: in the header, or in one of the first thousand rows of JSONL, each once. Rows of CSV and
    Parquet have these alone; None takes all that have a name of their own. Raises InvalidInput for a file that cannot
    be read, a missing column (naming those there are), and when there is no row.
    """
    names = []
    empty = True
    required = None if columns is None else list(dict.fromkeys(columns))
    for source_input in inputs:
        source = as_source(source_input, required or ())
        names.append(source.name)
        bad = Counting(on_bad_row)
        with naming_what_is_read(source.name, bad):
            for line, values in FORMATS[source.format.kind].rows(source, required, bad):
                empty = False
                yield Row(source.name, line, values)
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows", field="source")


def as_source(source_input: Input | Source, columns: Sequence[str]) -> Source:
    """The source of an input; its format is detected unless it is known."""
    return source_input if isinstance(source_input, Source) else detect_sources([source_input], columns=columns)[0]


def first_columns(source: Source) -> list[str]:
    """The columns of a file: its header's, or those of the first thousand rows of JSONL. Raises InvalidInput when there
    is no row that can be read."""
    return FORMATS[source.format.kind].columns(source)
