"""The formats that results are written in. A new one is an entry here, and what writes it in `export.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labelmill.contracts.errors import InvalidInput


@dataclass(frozen=True)
class OutputFormat:
    """How results of a file's suffix are written."""

    suffix: str
    is_table: bool  #: Its header comes before its rows: targets must be known.
    has_csv_options: bool = False  #: `--output-delimiter`, `--bom` and `--no-escape` mean something.
    leaves_scores_out: bool = False  #: Of a batch, unless they are asked for.


JSONL = OutputFormat(".jsonl", is_table=False)
CSV = OutputFormat(".csv", is_table=True, has_csv_options=True, leaves_scores_out=True)
PARQUET = OutputFormat(".parquet", is_table=True)
FORMATS = (JSONL, CSV, PARQUET)


def format_of(output: Path | None) -> OutputFormat:
    """The format of a file, by its suffix; of stdout. Raises InvalidInput for a suffix of no format."""
    if output is None:
        return JSONL
    for form in FORMATS:
        if output.name.lower().endswith(form.suffix):
            return form
    known = ", ".join(form.suffix for form in FORMATS)
    raise InvalidInput(f"{output}: results are written as {known}", field="output")
