"""Texts and ids alone, in blocks, as fast as it goes: what a batch of ten million rows is read with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from labelmill.contracts.chats import chat_as_text, is_chat
from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import BadRow, OnBadRow, kind_of_value, storable, value_as_text
from labelmill.core.readers.columns import SeenColumns, places_of_columns
from labelmill.core.readers.csv_rows import CsvReader
from labelmill.core.readers.files import Input, Source, open_bytes
from labelmill.core.readers.jsonl import LONG_LINE, read_jsonl_line
from labelmill.core.readers.rows import as_source, read_rows
from labelmill.core.readers.unreadable import Counting, naming_what_is_read
from labelmill.core.readers.whole_lines import whole_lines

_BLOCK_ROWS = 20_000
_MAX_HELD_BYTES = 16 << 20  #: Of lines whose columns are not all known to be there.
_ID = 1  # where the column of ids stands among those that are read
_PLAIN_COLUMN = re.compile(r'[^\x00-\x1f"\\]*')
_LINE_FEED = ord("\n")


@dataclass(slots=True)
class TextBlock:
    """Rows in input order: a text each, "" where there is none, and an id each, None where there is none.

    `ids` is None where no column of ids was asked for.
    """

    texts: list[str] = field(default_factory=list)
    ids: list[str | None] | None = None
    most_chars: int | None = None  #: At most so many characters in all texts; None: nobody counted.

    def __len__(self) -> int:
        return len(self.texts)


def read_text_blocks(
    inputs: Iterable[Input | Source], text_column: str, id_column: str | None, *, on_bad_row: OnBadRow
) -> Iterator[TextBlock]:
    """The texts of all inputs, some thousands at a time. Numbers become text. Raises as `read_rows` does."""
    columns = [text_column] if id_column is None else [text_column, id_column]
    names = []
    empty = True
    for given in inputs:
        source = as_source(given, columns)
        names.append(source.name)
        bad = Counting(on_bad_row)
        with naming_what_is_read(source.name, bad):
            for block in _READERS[source.format.kind](source, columns, bad):
                empty = False
                yield block
        empty = empty and not bad.count
    if empty:
        raise InvalidInput(f"{', '.join(names[:3]) or 'the source'} holds no rows")


def _blocks_of_jsonl(source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
    name = source.name
    seen = SeenColumns(name, columns)
    decoders = _decoders_of_plain_rows(columns)
    number = 1
    # until a row has every column, so that a file without one is refused before anything of it is used
    held: list[TextBlock] = []
    held_bytes = 0
    with open_bytes(source) as stream:
        for part in whole_lines(stream):
            if part is None:
                on_bad_row(BadRow(name, number, LONG_LINE))
                number += 1
                continue
            block = _parse_plain_rows(part, decoders, len(columns))
            if block is not None:
                number += len(block)
                seen.settle()
            else:
                block = _parse_line_by_line(part, number, seen, columns, decoders, on_bad_row)
                number += part.count(b"\n")
            if block.texts:
                held.append(block)
                held_bytes += len(part)
            if held and (seen.is_settled or held_bytes > _MAX_HELD_BYTES):
                yield from held
                held.clear()
    seen.finish()
    yield from held


def _decoders_of_plain_rows(columns: list[str]) -> list[Callable[[bytes], list[Any]]]:
    """Decode lines whose text is a string, and nothing else of it but its id: a string, or, what takes longer, a whole
    number or null too. Without a dictionary it takes half the time."""
    if not all(map(_PLAIN_COLUMN.fullmatch, columns)):
        return []  # it takes no names that JSON writes in another way
    names = dict(zip(("text", "id"), dict.fromkeys(columns), strict=False))
    return [_decoder({"text": str, "id": kind}, names) for kind in (str, str | int | None)]


def _decoder(kinds: dict[str, Any], names: dict[str, str]) -> Callable[[bytes], list[Any]]:
    # no row refers to another: the collector need not look at them
    row = msgspec.defstruct("Row", [(name, kinds[name]) for name in names], rename=names, gc=False)
    return msgspec.json.Decoder(row).decode_lines


def _parse_plain_rows(lines: bytes, decoders: list[Callable[[bytes], list[Any]]], columns: int) -> TextBlock | None:
    """None: some line is not a plain row."""
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
            return TextBlock(texts, most_chars=len(lines))
        ids = [row.id for row in rows] if hasattr(rows[0], "id") else texts  # one column may be both
        if decode is not decoders[0] or not all(ids):
            ids = [None if one is None or one == "" else str(one) for one in ids]
        return TextBlock(texts, ids, most_chars=len(lines))
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
    seen: SeenColumns,
    columns: list[str],
    decoders: list[Callable[[bytes], list[Any]]],
    on_bad_row: OnBadRow,
) -> TextBlock:
    block = _new_block(columns)
    for at, line in enumerate(lines.split(b"\n"), number):
        if line.isspace() or not line:
            continue
        # as among plain rows: what becomes of a line must not depend on its neighbours
        if (plain := _parse_plain_rows(line, decoders, len(columns))) is not None:
            block.texts += plain.texts
            if block.ids is not None:
                block.ids += plain.ids or ()
            if not seen.is_settled:
                seen.add(orjson.loads(line))
            continue
        for _, values in read_jsonl_line(line, at, seen.name, on_bad_row):
            if not seen.is_settled:
                seen.add(values)
            _add(block, values, columns, BadRow(seen.name, at, ""), on_bad_row)
    return block


def _blocks_of_csv(source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
    with open_bytes(source) as stream:
        reader = CsvReader(stream, source.name, source.format, on_bad_row)
        if not reader.columns:
            return
        text_at, *id_at = places_of_columns(source.name, reader.columns, columns)
        last = max(text_at, *id_at, 0)
        block = _new_block(columns)
        for line, cells in reader.rows():
            if len(cells) <= last:
                cells = [*cells, *[""] * (last + 1 - len(cells))]  # noqa: PLW2901 - what was left out is empty
            if block.ids is not None:
                one = cells[id_at[0]]
                if "\x00" in one:
                    on_bad_row(BadRow(source.name, line, nul_in_id(columns[_ID])))
                    continue
                block.ids.append(one or None)
            block.texts.append(cells[text_at])
            if len(block.texts) >= _BLOCK_ROWS:
                yield block
                block = _new_block(columns)
        if block.texts:
            yield block


def _blocks_of_parquet(source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
    block = _new_block(columns)
    for row in read_rows([source], columns=columns, on_bad_row=on_bad_row):
        _add(block, row.values, columns, BadRow(row.file, row.line, ""), on_bad_row)
        if len(block) >= _BLOCK_ROWS:
            yield block
            block = _new_block(columns)
    if block.texts:
        yield block


_READERS = {"jsonl": _blocks_of_jsonl, "csv": _blocks_of_csv, "parquet": _blocks_of_parquet}


def _new_block(columns: Sequence[str]) -> TextBlock:
    return TextBlock(ids=[] if len(columns) > 1 else None)


def _add(block: TextBlock, values: dict[str, Any], columns: list[str], place: BadRow, on_bad_row: OnBadRow) -> None:
    found = texts_of_row(values, columns)
    if isinstance(found, str):
        on_bad_row(BadRow(place.file, place.line, found))
        return
    block.texts.append(found[0])
    if block.ids is not None:
        block.ids.append(found[1] or None)


def texts_of_row(values: dict[str, Any], columns: Sequence[str]) -> list[str] | str:
    """What a row has in `columns`, of which the first is the text's; or, as a sentence, why it is a bad row."""
    found: list[str] = []
    for column in columns:
        value = values.get(column)
        text = chat_as_text(value) if column is columns[0] and is_chat(value) else value_as_text(value)
        if text is None:
            return f"{column!r} is {kind_of_value(values[column])}, not a text"
        if not storable(text):
            return f"{column!r} is not UTF-8"
        if len(found) == _ID and "\x00" in text:
            return nul_in_id(column)
        found.append(text)
    return found


def nul_in_id(column: str) -> str:
    """Why an id is no id that a database keeps."""
    return f"the id in {column!r} holds a NUL character"
