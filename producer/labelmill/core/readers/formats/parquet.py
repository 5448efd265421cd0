"""Parquet, one batch of rows in memory at a time."""

from __future__ import annotations

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import OnBadRow
from labelmill.core.readers.columns import clear_names, places_of_columns
from labelmill.core.readers.files import Source
from labelmill.core.readers.formats.base import InputFormat, Rows
from labelmill.core.readers.formats.parquet_batches import open_parquet, parquet_columns, read_parquet


class Parquet(InputFormat):
    """Parquet files."""

    kind = "parquet"
    title = "Parquet"
    suffixes = (".parquet", ".pq")
    magic = b"PAR1"

    def rows(self, source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
        del on_bad_row  # a bad value is reported by what reads it
        with open_parquet(source) as file:
            in_file = parquet_columns(file)
            names = clear_names(in_file) if columns is None else columns
            columns_of_file = [in_file[place] for place in places_of_columns(source.name, in_file, names)]
            line = 0
            for batch in read_parquet(file, source.name, columns_of_file):
                for line, cells in enumerate(zip(*batch, strict=True), start=line + 1):  # noqa: B020 - it counts on
                    yield line, dict(zip(names, cells, strict=True))

    def columns(self, source: Source) -> list[str]:
        with open_parquet(source) as file:
            if not file.metadata.num_rows:
                raise InvalidInput(f"{source.name} holds no rows", field="source")
            return parquet_columns(file)
