"""Streaming readers of rows: JSONL, CSV and Parquet, plain or gzipped. Memory does not grow with the file.

`files` finds and opens sources, `jsonl`, `csv_rows` and `parquet` read one format each, `rows` puts them together:
`read_rows` for whole rows, `read_text_blocks` for texts and ids alone, as fast as it goes.
"""

from labelmill.contracts.readers.bad_rows import BadRow, OnBadRow
from labelmill.contracts.readers.files import Input, expand_source
from labelmill.contracts.readers.rows import Row, check_columns, first_columns, read_rows
from labelmill.contracts.readers.text_blocks import TextBlock, read_text_blocks, texts_of_row

__all__ = [
    "BadRow",
    "Input",
    "OnBadRow",
    "Row",
    "TextBlock",
    "check_columns",
    "expand_source",
    "first_columns",
    "read_rows",
    "read_text_blocks",
    "texts_of_row",
]
