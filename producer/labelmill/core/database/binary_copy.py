"""Rows in PostgreSQL's binary COPY format, packed column by column: a third of the work of packing row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

_LENGTH = ">i4"
_NO_VALUE = -1  #: The length of a field without a value.
NULL = b"\xff\xff\xff\xff"  #: Such a field.


def pack_rows(
    count: int,
    numbers: Sequence[tuple[Any, Any]],
    texts: Sequence[str | None] | None,
    further: Iterable[bytes] | None = None,
    *,
    fields: int,
) -> bytes:
    """`count` rows of `fields` columns: first those of fixed width, then one of texts (None: no row has any), then what
    `further` has for each row: all columns that are left, in one piece.

    `numbers`: for each column a NumPy type, big-endian as PostgreSQL wants it, and its values (or one for all rows).
    """
    kinds = [np.dtype(kind) for kind, _ in numbers]
    layout: list[Any] = [("fields", ">i2")]
    for index, kind in enumerate(kinds):
        layout += [(f"length{index}", _LENGTH), (f"value{index}", kind.base, kind.shape)]
    # with the length of the text: a piece less to join for each row
    fixed = np.empty(count, np.dtype([*layout, ("length", _LENGTH)]))
    fixed["fields"] = fields
    for index, (kind, (_, values)) in enumerate(zip(kinds, numbers, strict=True)):
        fixed[f"length{index}"], fixed[f"value{index}"] = kind.itemsize, values
    columns: list[Iterable[bytes]] = []
    if texts is None:
        fixed["length"] = _NO_VALUE
    else:
        contents, fixed["length"] = _contents(texts)
        columns.append(contents)
    if further is not None:
        columns.append(further)
    heads = cast("list[bytes]", fixed.view(f"V{fixed.itemsize}").tolist())
    return b"".join(chain.from_iterable(zip(heads, *columns, strict=True)))


def _contents(texts: Sequence[str | None]) -> tuple[list[bytes], Any]:
    """Texts as bytes, and their lengths."""
    try:
        contents = [*map(str.encode, texts)]  # type: ignore[arg-type]
    except TypeError:  # some are missing
        contents = [b"" if text is None else text.encode() for text in texts]
        pairs = zip(texts, contents, strict=True)
        return contents, [_NO_VALUE if text is None else len(content) for text, content in pairs]
    return contents, np.fromiter(map(len, contents), np.int32, len(contents))


def text_field(value: str | None) -> bytes:
    """One text of a row, as one piece."""
    if value is None:
        return NULL
    raw = value.encode()
    return len(raw).to_bytes(4, "big") + raw
