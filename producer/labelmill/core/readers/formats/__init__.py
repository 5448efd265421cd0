"""Input formats, a module for each: `jsonl`, `delimited` (CSV and TSV), `parquet`; `base` defines their interface.

A new format is a class in a module of its own, its entry in `FORMATS`, and its name in `InputKind` of
`contracts/specs.py`; options, detection by suffix or first bytes, and both ways of reading follow from these.
"""

from __future__ import annotations

from labelmill.contracts.specs import InputKind
from labelmill.core.readers.formats.base import InputFormat, Sample
from labelmill.core.readers.formats.delimited import Delimited
from labelmill.core.readers.formats.jsonl import Jsonl
from labelmill.core.readers.formats.parquet import Parquet

FORMATS: dict[InputKind, InputFormat] = {form.kind: form for form in (Jsonl(), Delimited(), Parquet())}
"""Every format, by the kind that is recorded."""


def format_by_suffix(suffix: str) -> InputFormat | None:
    """The format of files with this suffix."""
    return next((form for form in FORMATS.values() if suffix in form.suffixes), None)


def format_by_magic(start: bytes) -> InputFormat | None:
    """The binary format of a file that begins with these bytes."""
    return next((form for form in FORMATS.values() if form.magic and start.startswith(form.magic)), None)


__all__ = ["FORMATS", "InputFormat", "Sample", "format_by_magic", "format_by_suffix"]
