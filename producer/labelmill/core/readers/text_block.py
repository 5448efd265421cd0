"""Blocks of texts and ids, and the conversion of a row to a text and an id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from labelmill.contracts.chats import chat_as_text, is_chat
from labelmill.core.readers.bad_rows import BadRow, OnBadRow, can_be_utf8, kind_of_value, value_as_text

BLOCK_ROWS = 20_000
ID = 1  #: The index of the column of ids among those that are read.


@dataclass(slots=True)
class TextBlock:
    """Rows in input order: for each a text ("" if missing) and an id (None if missing).

    `ids` is None if no column of ids was requested.
    """

    texts: list[str] = field(default_factory=list)
    ids: list[str | None] | None = None
    max_chars: int | None = None  #: An upper bound of the characters in all texts; None: unknown.

    def __len__(self) -> int:
        return len(self.texts)


def new_block(columns: Sequence[str]) -> TextBlock:
    """An empty block for these columns."""
    return TextBlock(ids=[] if len(columns) > 1 else None)


def add_row(
    block: TextBlock, values: dict[str, Any], columns: Sequence[str], place: BadRow, on_bad_row: OnBadRow
) -> None:
    """Add a row's text and id to a block; a bad one goes to `on_bad_row`, at `place`."""
    texts = texts_of_row(values, columns)
    if isinstance(texts, str):
        on_bad_row(BadRow(place.file, place.line, texts))
        return
    block.texts.append(texts[0])
    if block.ids is not None:
        block.ids.append(texts[1] or None)


def texts_of_row(values: dict[str, Any], columns: Sequence[str]) -> list[str] | str:
    """The texts of a row in `columns`, the first of which is the column of texts; or a sentence why the row is bad."""
    texts: list[str] = []
    for column in columns:
        value = values.get(column)
        text = chat_as_text(value) if column is columns[0] and is_chat(value) else value_as_text(value)
        if text is None:
            return f"{column!r} is {kind_of_value(values[column])}, not a text"
        if not can_be_utf8(text):
            return f"{column!r} is not UTF-8"
        if len(texts) == ID and "\x00" in text:
            return nul_in_id(column)
        texts.append(text)
    return texts


def nul_in_id(column: str) -> str:
    """The reason for refusing an id that databases cannot store."""
    return f"the id in {column!r} holds a NUL character"
