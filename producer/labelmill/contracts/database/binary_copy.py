"""Rows in PostgreSQL's binary COPY format, put together column by column: a third of the work of a row at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

NULL = b"\xff\xff\xff\xff"  #: A field without a value: a length of -1.


def pack_rows(
    count: int, numbers: Sequence[tuple[Any, Any]], texts: Sequence[Iterable[bytes]], *, fields: int
) -> bytes:
    """`count` rows of `fields` columns: first those of fixed width, then those that `text_field` made.

    `numbers`: for each column a NumPy type, big-endian as PostgreSQL wants it, and its values (or one for all rows).
    """
    kinds = [np.dtype(kind) for kind, _ in numbers]
    layout: list[Any] = [("fields", ">i2")]
    for index, kind in enumerate(kinds):
        layout += [(f"length{index}", ">i4"), (f"value{index}", kind.base, kind.shape)]
    fixed = np.empty(count, np.dtype(layout))
    fixed["fields"] = fields
    for index, (kind, (_, values)) in enumerate(zip(kinds, numbers, strict=True)):
        fixed[f"length{index}"], fixed[f"value{index}"] = kind.itemsize, values
    raw, width = fixed.tobytes(), fixed.itemsize
    heads = [raw[at : at + width] for at in range(0, len(raw), width)]
    return b"".join(chain.from_iterable(zip(heads, *texts, strict=True)))


def text_field(value: str | None) -> bytes:
    """One text of a row."""
    if value is None:
        return NULL
    raw = value.encode()
    return len(raw).to_bytes(4, "big") + raw
