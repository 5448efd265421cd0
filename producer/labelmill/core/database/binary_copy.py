"""Rows in PostgreSQL's binary COPY format, packed column by column: a third of the work of packing row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_LENGTH = ">i4"
NULL = b"\xff\xff\xff\xff"  #: A field without a value: a length of -1.


def pack_rows(
    count: int, numbers: Sequence[tuple[Any, Any]], pieces: Sequence[Iterable[bytes]], *, fields: int
) -> bytes:
    """`count` rows of `fields` columns: first those of fixed width, then what the `pieces` of each row hold.

    `numbers`: for each column a NumPy type, big-endian as PostgreSQL wants it, and its values (or one for all rows).
    """
    kinds = [np.dtype(kind) for kind, _ in numbers]
    layout: list[Any] = [("fields", ">i2")]
    for index, kind in enumerate(kinds):
        layout += [(f"length{index}", _LENGTH), (f"value{index}", kind.base, kind.shape)]
    fixed = np.empty(count, np.dtype(layout))
    fixed["fields"] = fields
    for index, (kind, (_, values)) in enumerate(zip(kinds, numbers, strict=True)):
        fixed[f"length{index}"], fixed[f"value{index}"] = kind.itemsize, values
    return b"".join(chain.from_iterable(zip(_as_bytes(fixed), *pieces, strict=True)))


def text_fields(values: Sequence[str | None]) -> Sequence[Sequence[bytes]]:
    """The pieces of a column of texts: their lengths and they themselves."""
    try:
        texts = [*map(str.encode, values)]  # type: ignore[arg-type]
    except TypeError:  # some are missing
        return [[*map(text_field, values)]]
    return [_as_bytes(np.fromiter(map(len, texts), _LENGTH, len(texts))), texts]


def text_field(value: str | None) -> bytes:
    """One text of a row, as one piece."""
    if value is None:
        return NULL
    raw = value.encode()
    return len(raw).to_bytes(4, "big") + raw


def _as_bytes(items: NDArray[Any]) -> list[bytes]:
    return cast("list[bytes]", items.view(f"V{items.itemsize}").tolist())
