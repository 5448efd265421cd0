"""Rows in PostgreSQL's binary COPY format, put together column by column: a third of the work of a row at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.bulk import BINARY_END, BINARY_HEAD

NULL = b"\xff\xff\xff\xff"  #: A field without a value: a length of -1.


def pack_rows(
    count: int, numbers: Sequence[tuple[Any, Any]], texts: Sequence[Iterable[bytes]], *, fields: int
) -> bytes:
    """`count` rows of `fields` columns: first those of fixed width, then those that `text_field` made.

    `numbers`: for each column a NumPy type, big-endian as PostgreSQL wants it, and its values (or one for all rows).
    """
    kinds = [np.dtype(kind) for kind, _ in numbers]
    layout = _layout([(kind, f"value{index}") for index, kind in enumerate(kinds)])
    fixed = np.empty(count, layout)
    fixed["fields"] = fields
    for index, (kind, (_, values)) in enumerate(zip(kinds, numbers, strict=True)):
        fixed[f"length of value{index}"], fixed[f"value{index}"] = kind.itemsize, values
    raw, width = fixed.tobytes(), fixed.itemsize
    heads = [raw[at : at + width] for at in range(0, len(raw), width)]
    return b"".join(chain.from_iterable(zip(heads, *texts, strict=True)))


def text_field(value: str | None) -> bytes:
    """One text of a row."""
    if value is None:
        return NULL
    raw = value.encode()
    return len(raw).to_bytes(4, "big") + raw


def unpack_rows(data: bytes, columns: Sequence[tuple[Any, str]]) -> NDArray[Any]:
    """What COPY … TO STDOUT (FORMAT BINARY) sent, as an array with a field for each column.

    `columns`: a NumPy type, big-endian as PostgreSQL sends it, and a name; all of fixed width and none NULL. Raises
    ValueError for anything else.
    """
    layout = _layout([(np.dtype(kind), name) for kind, name in columns])
    table = np.frombuffer(data[len(BINARY_HEAD) : -len(BINARY_END)], layout)
    for kind, name in columns:
        if (table[f"length of {name}"] != np.dtype(kind).itemsize).any():
            raise ValueError(f"a {name} has another width than all others")
    return table


def _layout(columns: Sequence[tuple[np.dtype[Any], str]]) -> np.dtype[Any]:
    layout: list[Any] = [("fields", ">i2")]
    for kind, name in columns:
        layout += [(f"length of {name}", ">i4"), (name, kind.base, kind.shape)]
    return np.dtype(layout)
