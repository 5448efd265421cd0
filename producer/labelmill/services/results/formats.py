"""The formats that results are written in. A new one is an entry here, and what writes it in `export.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labelmill.contracts.bounds import plain
from labelmill.contracts.errors import InvalidInput
from labelmill.core.storage.remote import RemoteUrl, is_url


@dataclass(frozen=True)
class OutputFormat:
    """How results of a file's suffix are written."""

    suffix: str
    is_table: bool  #: Its header comes before its rows: targets must be known.
    has_csv_options: bool = False  #: `--output-delimiter`, `--bom` and `--no-escape` mean something.
    leaves_scores_out: bool = False  #: Of a batch, unless they are asked for.


Output = Path | RemoteUrl  #: Where results are written.


def output_of(text: str) -> Output:
    """The output that a person names: a path, or `s3://bucket/key`. Raises InvalidInput."""
    if not is_url(text):
        return Path(text)
    if not text.lower().startswith("s3://"):
        raise InvalidInput(f"{plain(text)}: results are written to a file or to s3://bucket/key", field="output")
    bucket, _, key = text.partition("://")[2].partition("/")
    if not bucket or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput(
            "the output in S3 names no file: write s3://bucket/key, the key of plain names with / between them",
            field="output",
        )
    return RemoteUrl(f"s3://{bucket}/{key}")


JSONL = OutputFormat(".jsonl", is_table=False)
CSV = OutputFormat(".csv", is_table=True, has_csv_options=True, leaves_scores_out=True)
PARQUET = OutputFormat(".parquet", is_table=True)
FORMATS = (JSONL, CSV, PARQUET)


def format_of(output: Output | None) -> OutputFormat:
    """The format of a file, by its suffix; of stdout. Raises InvalidInput for a suffix of no format."""
    if output is None:
        return JSONL
    for form in FORMATS:
        if output.name.lower().endswith(form.suffix):
            return form
    known = ", ".join(form.suffix for form in FORMATS)
    raise InvalidInput(f"{output}: results are written as {known}", field="output")
