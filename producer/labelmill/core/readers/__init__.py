"""Streaming readers of rows: JSONL, CSV and Parquet, plain or gzipped. Memory does not grow with the file.

`files` finds and opens sources, `detection` detects their formats, `formats/` has a module for each format, and two
functions read any of them: `read_rows` reads whole rows, `read_text_blocks` only texts and ids, but faster.
`python_rows` has rows that a program hands over in place of a file.
"""

from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.columns import check_columns, columns_named_by
from labelmill.core.readers.detection import (
    detect_sources,
    formats_of,
    known_sources,
    read_options,
    refuse_file_options,
)
from labelmill.core.readers.files import Input, Source, expand_source, inputs_of
from labelmill.core.readers.python_rows import PythonRows, given_source
from labelmill.core.readers.rows import Row, first_columns, read_rows
from labelmill.core.readers.text_block import TextBlock, texts_of_row
from labelmill.core.readers.text_blocks import read_text_blocks

__all__ = [
    "BadRow",
    "Input",
    "OnBadRow",
    "PythonRows",
    "Row",
    "Source",
    "TextBlock",
    "check_columns",
    "columns_named_by",
    "detect_sources",
    "expand_source",
    "first_columns",
    "formats_of",
    "given_source",
    "inputs_of",
    "known_sources",
    "read_options",
    "read_rows",
    "read_text_blocks",
    "refuse_file_options",
    "texts_of_row",
]
