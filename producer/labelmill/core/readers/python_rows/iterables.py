"""Lists, generators and other iterables of texts or mappings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.columns import SeenColumns
from labelmill.core.readers.python_rows.base import ROWS_AT_ONCE, PythonRows, plain_block, plain_value
from labelmill.core.readers.text_block import ID, TextBlock, add_row, new_block
from labelmill.core.stopping import while_waited_for

_TEXT = "text"


class IterableRows(PythonRows):
    """Each row is a text, or a mapping of columns to values. What the iterable itself raises is not caught."""

    def __init__(self, source: Iterable[object]) -> None:
        super().__init__(source)
        self._source = while_waited_for(source)

    def rows(self, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        text = columns[0] if columns else _TEXT
        seen_columns = SeenColumns(self.name, columns or ())
        for row in self._source:
            values = row if isinstance(row, Mapping) else {text: row}
            if not seen_columns.is_settled:
                seen_columns.add(map(str, values))
            if columns is None:
                yield {str(name): value for name, value in values.items()}
            else:
                yield {column: values[column] for column in columns if column in values}
        seen_columns.finish()

    def blocks(self, columns: Sequence[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
        seen_columns = SeenColumns(self.name, columns)
        source = iter(self._source)
        number = 1
        while some := list(islice(source, ROWS_AT_ONCE)):
            block = _plain_block(some, columns)
            if block is not None:
                seen_columns.settle()
            else:
                block = self._row_by_row(some, number, seen_columns, columns, on_bad_row)
            seen_columns.finish()
            number += len(some)
            yield block

    def _row_by_row(
        self,
        some: list[object],
        number: int,
        seen_columns: SeenColumns,
        columns: Sequence[str],
        on_bad_row: OnBadRow,
    ) -> TextBlock:
        block = new_block(columns)
        for at, row in enumerate(some, number):
            if isinstance(row, Mapping):
                if not seen_columns.is_settled:
                    seen_columns.add(map(str, row))
                values = {column: plain_value(row.get(column)) for column in columns}
            elif len(columns) > ID:
                raise InvalidInput(
                    f"{self.name} holds rows that are texts, which have no column {shown(columns[ID])}: hand over "
                    "mappings",
                    field="id_column",
                )
            else:
                seen_columns.settle()
                values = {columns[0]: plain_value(row)}
            add_row(block, values, columns, BadRow(self.name, at, ""), on_bad_row)
        return block


def _plain_block(some: list[Any], columns: Sequence[str]) -> TextBlock | None:
    kinds = set(map(type, some))
    if kinds == {str} and len(columns) == 1:
        return plain_block(some, None)
    if kinds != {dict}:
        return None
    try:
        texts, *ids = ([row[column] for row in some] for column in columns)
    except KeyError:
        return None
    return plain_block(texts, ids[0] if ids else None)
