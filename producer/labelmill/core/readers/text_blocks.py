"""Fast reading of texts and ids in blocks, for batches of millions of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import OnBadRow
from labelmill.core.readers.files import Input, Source
from labelmill.core.readers.formats import FORMATS
from labelmill.core.readers.python_rows import PythonRows
from labelmill.core.readers.rows import as_source
from labelmill.core.readers.text_block import TextBlock
from labelmill.core.readers.unreadable import Counting, naming_what_is_read


def read_text_blocks(
    inputs: Iterable[Input | Source | PythonRows], text_column: str, id_column: str | None, *, on_bad_row: OnBadRow
) -> Iterator[TextBlock]:
    """The texts of all inputs, some thousands at a time. Numbers become text. Raises as `read_rows` does."""
    columns = [text_column] if id_column is None else [text_column, id_column]
    names = []
    empty = True
    for source_input in inputs:
        given = source_input if isinstance(source_input, PythonRows) else as_source(source_input, columns)
        names.append(given.name)
        bad = Counting(on_bad_row)
        for block in _blocks_of(given, columns, bad):
            empty = False
            yield block
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows", field="source")


def _blocks_of(source: Source | PythonRows, columns: list[str], bad: Counting) -> Iterator[TextBlock]:
    if isinstance(source, PythonRows):
        yield from source.blocks(columns, bad)  # what the program's own code raises is the program's to see
        return
    with naming_what_is_read(source.name, bad):
        yield from FORMATS[source.format.kind].blocks(source, columns, bad)
