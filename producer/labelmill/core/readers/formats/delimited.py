"""CSV and TSV, with a header line and any delimiter."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

from labelmill.contracts.specs import FileFormat
from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.columns import clear_names, places_of_columns
from labelmill.core.readers.files import Source, open_bytes
from labelmill.core.readers.formats.base import InputFormat, Rows, Sample
from labelmill.core.readers.formats.csv_rows import CsvReader
from labelmill.core.readers.formats.delimiters import find_delimiter
from labelmill.core.readers.formats.first_rows import require_rows
from labelmill.core.readers.text_block import BLOCK_ROWS, ID, TextBlock, new_block, nul_in_id


class Delimited(InputFormat):
    """CSV and TSV."""

    kind = "csv"
    title = "CSV"
    suffixes = (".csv", ".tsv")
    has_delimiter = True

    def describe(self, sample: Sample) -> FileFormat:
        text, options = sample.text, sample.options
        if sample.is_cut:
            text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
        lines = list(io.StringIO(text, newline=""))
        is_tsv = sample.suffix == ".tsv"
        delimiter = options.delimiter or find_delimiter(lines, sample.columns, options.quoting, prefers_tab=is_tsv)
        quoting = options.quoting or ("line" if delimiter == "\t" else "standard")
        return FileFormat(kind="csv", encoding=sample.encoding, delimiter=delimiter, quoting=quoting)

    def rows(self, source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
        with open_bytes(source) as stream:
            reader = CsvReader(stream, source.name, source.format, on_bad_row)
            if not reader.columns:
                return
            names = clear_names(reader.columns) if columns is None else columns
            places = list(zip(names, places_of_columns(source.name, reader.columns, names), strict=True))
            for line, cells in reader.rows():
                yield line, {name: cells[place] if place < len(cells) else "" for name, place in places}

    def columns(self, source: Source) -> list[str]:
        require_rows(source, lambda on_bad_row: islice(self.rows(source, None, on_bad_row), 1))
        with open_bytes(source) as stream:
            return CsvReader(stream, source.name, source.format, lambda _: None).columns

    def blocks(self, source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
        with open_bytes(source) as stream:
            reader = CsvReader(stream, source.name, source.format, on_bad_row)
            if not reader.columns:
                return
            text_at, *id_at = places_of_columns(source.name, reader.columns, columns)
            last = max(text_at, *id_at, 0)
            block = new_block(columns)
            for line, cells in reader.rows():
                if len(cells) <= last:
                    cells = [*cells, *[""] * (last + 1 - len(cells))]  # noqa: PLW2901 - what was left out is empty
                if block.ids is not None:
                    row_id = cells[id_at[0]]
                    if "\x00" in row_id:
                        on_bad_row(BadRow(source.name, line, nul_in_id(columns[ID])))
                        continue
                    block.ids.append(row_id or None)
                block.texts.append(cells[text_at])
                if len(block.texts) >= BLOCK_ROWS:
                    yield block
                    block = new_block(columns)
            if block.texts:
                yield block
