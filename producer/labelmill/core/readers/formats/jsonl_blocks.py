"""Fast reading of texts and ids from JSON lines: lines without anything unusual are decoded together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson

from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.columns import SeenColumns
from labelmill.core.readers.files import Source, open_bytes
from labelmill.core.readers.formats.jsonl_lines import LONG_LINE, read_jsonl_line
from labelmill.core.readers.text_block import TextBlock, add_row, new_block
from labelmill.core.readers.whole_lines import whole_lines

_MAX_WAITING_BYTES = 16 << 20  #: Of lines whose columns are not all known to be there.
_PLAIN_COLUMN = re.compile(r'[^\x00-\x1f"\\]*')
_LINE_FEED = ord("\n")


def read_jsonl_blocks(source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
    """The texts and ids of a file of JSONL."""
    name = source.name
    seen_columns = SeenColumns(name, columns)
    decoders = _decoders_of_plain_rows(columns)
    number = 1
    # until a row has every column, so that a file that lacks one is refused before any row is used
    waiting_blocks: list[TextBlock] = []
    waiting_bytes = 0
    with open_bytes(source) as stream:
        for part in whole_lines(stream):
            if part is None:
                on_bad_row(BadRow(name, number, LONG_LINE))
                number += 1
                continue
            block = _parse_plain_rows(part, decoders, len(columns))
            if block is not None:
                number += len(block)
                seen_columns.settle()
            else:
                block = _parse_line_by_line(part, number, seen_columns, columns, decoders, on_bad_row)
                number += part.count(b"\n")
            if block.texts:
                waiting_blocks.append(block)
                waiting_bytes += len(part)
            if waiting_blocks and (seen_columns.is_settled or waiting_bytes > _MAX_WAITING_BYTES):
                yield from waiting_blocks
                waiting_blocks.clear()
    seen_columns.finish()
    yield from waiting_blocks


def _decoders_of_plain_rows(columns: list[str]) -> list[Callable[[bytes], list[Any]]]:
    """Decode lines whose text is a string, and nothing else of it but its id: a string, or, what takes longer, a whole
    number or null too. Without a dictionary it takes half the time."""
    if not all(map(_PLAIN_COLUMN.fullmatch, columns)):
        return []  # it takes no names that JSON writes in another way
    names = dict(zip(("text", "id"), dict.fromkeys(columns), strict=False))
    return [_decoder({"text": str, "id": kind}, names) for kind in (str, str | int | None)]


def _decoder(kinds: dict[str, Any], names: dict[str, str]) -> Callable[[bytes], list[Any]]:
    # rows contain no references: the garbage collector need not track them
    row = msgspec.defstruct("Row", [(name, kinds[name]) for name in names], rename=names, gc=False)
    return msgspec.json.Decoder(row).decode_lines


def _parse_plain_rows(lines: bytes, decoders: list[Callable[[bytes], list[Any]]], columns: int) -> TextBlock | None:
    """The lines' texts and ids; None: some line is not a plain row."""
    if columns > 1 and b"\\" in lines and b"\\u0000" in lines:  # no database keeps it in an id
        return None
    for decode in decoders:
        try:
            rows = decode(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if not _has_one_a_line(lines, len(rows)):
            return None
        texts = [row.text for row in rows]
        if columns == 1:
            return TextBlock(texts, max_chars=len(lines))
        ids = [row.id for row in rows] if hasattr(rows[0], "id") else texts  # one column may be both
        if decode is not decoders[0] or not all(ids):
            ids = [None if row_id is None or row_id == "" else str(row_id) for row_id in ids]
        return TextBlock(texts, ids, max_chars=len(lines))
    return None


def _has_one_a_line(lines: bytes, rows: int) -> bool:
    """Whether each line is one of the objects that were read. A decoder takes any white space between and within them.

    A line break inside a text cannot be, so that a break between `}` and `{` stands between two objects; as many such
    breaks as there are places between objects, and no other break: one in each place.
    """
    import numpy as np  # noqa: PLC0415 - a tenth of a second, which other commands spare

    raw = np.frombuffer(lines, np.uint8)
    breaks = np.flatnonzero(raw[:-1] == _LINE_FEED)
    before = raw[breaks - (2 if lines.endswith(b"\r\n") else 1)]
    return (
        lines.startswith(b"{")
        and breaks.size == rows - 1
        and bool((before == ord("}")).all() and (raw[breaks + 1] == ord("{")).all())
    )


def _parse_line_by_line(
    lines: bytes,
    number: int,
    seen_columns: SeenColumns,
    columns: list[str],
    decoders: list[Callable[[bytes], list[Any]]],
    on_bad_row: OnBadRow,
) -> TextBlock:
    block = new_block(columns)
    for at, line in enumerate(lines.split(b"\n"), number):
        if line.isspace() or not line:
            continue
        # as for blocks of plain rows: the result for a line must not depend on its neighbours
        if (plain := _parse_plain_rows(line, decoders, len(columns))) is not None:
            block.texts += plain.texts
            if block.ids is not None:
                block.ids += plain.ids or ()
            if not seen_columns.is_settled:
                seen_columns.add(orjson.loads(line))
            continue
        for _, values in read_jsonl_line(line, at, seen_columns.name, on_bad_row):
            if not seen_columns.is_settled:
                seen_columns.add(values)
            add_row(block, values, columns, BadRow(seen_columns.name, at, ""), on_bad_row)
    return block
