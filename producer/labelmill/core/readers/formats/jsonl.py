"""JSONL: one object a line, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import orjson

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import FileFormat
from labelmill.core.readers.bad_rows import OnBadRow
from labelmill.core.readers.columns import FIRST_ROWS, SeenColumns
from labelmill.core.readers.files import Source, open_bytes
from labelmill.core.readers.formats.base import InputFormat, Rows, Sample
from labelmill.core.readers.formats.first_rows import require_rows
from labelmill.core.readers.formats.jsonl_blocks import read_jsonl_blocks
from labelmill.core.readers.formats.jsonl_lines import read_jsonl
from labelmill.core.readers.text_block import TextBlock

_ONE_OBJECT_A_LINE = "write one object on each line (JSONL), such as with: jq -c"
_LINES = 100  #: Among which one that is an object shows that the file has one on each line.


class Jsonl(InputFormat):
    """JSON lines."""

    kind = "jsonl"
    title = "JSONL"
    suffixes = (".jsonl", ".ndjson", ".json")

    def describe(self, sample: Sample) -> FileFormat:
        _refuse_other_json(sample.text, sample.name)
        return super().describe(sample)

    def rows(self, source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
        seen_columns = SeenColumns(source.name, columns or ())
        with open_bytes(source) as stream:
            for line, values in read_jsonl(stream, source.name, on_bad_row):
                if not seen_columns.is_settled:
                    seen_columns.add(values)
                yield line, values
        seen_columns.finish()

    def columns(self, source: Source) -> list[str]:
        """Those of the first thousand rows."""
        first = require_rows(source, lambda on_bad_row: islice(self.rows(source, None, on_bad_row), FIRST_ROWS))
        return list(dict.fromkeys(name for _, values in first for name in values))

    def blocks(self, source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
        return read_jsonl_blocks(source, columns, on_bad_row)


def _refuse_other_json(text: str, name: str) -> None:
    """Raise InvalidInput for JSON that is not in lines."""
    text = text.lstrip()
    first, _, following = text.partition("\n")
    if text.startswith("["):
        raise InvalidInput(f"{name} holds a JSON array; {_ONE_OBJECT_A_LINE} '.[]'")
    if not first.startswith("{"):
        return
    try:
        orjson.loads(first)
    except ValueError:
        is_begun = first.strip() == "{" and following.lstrip()[:1] == '"'
        if (is_begun or _spans_lines(text)) and not any(map(_is_object, following.splitlines()[:_LINES])):
            raise InvalidInput(f"{name} holds objects of several lines each; {_ONE_OBJECT_A_LINE} .") from None


def _is_object(line: str) -> bool:
    try:
        return type(orjson.loads(line)) is dict
    except ValueError:
        return False


def _spans_lines(text: str) -> bool:
    """Whether a whole object begins on the first line and ends on a later one."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:end]
