"""The interface of rows that a program hands over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from labelmill.contracts.sources import name_of_source
from labelmill.core.readers.bad_rows import OnBadRow
from labelmill.core.readers.text_block import TextBlock

ROWS_AT_ONCE = 10_000  #: In memory.
_MISSING = {"NAType", "NaTType"}  #: Of pandas.


class PythonRows(ABC):
    """Rows of a program, which can be read once. `name`: in messages, and as the source of the job."""

    def __init__(self, source: object) -> None:
        self.name = name_of_source(source)

    @abstractmethod
    def rows(self, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        """Every row with these columns, or with all; one that lacks some is without them."""

    @abstractmethod
    def blocks(self, columns: Sequence[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
        """Texts, and ids where two columns are given. Raises InvalidInput for a column that is missing."""


def plain_value(value: Any) -> Any:
    """A value of NumPy, pandas or pyarrow as Python's own; other values unchanged."""
    module = type(value).__module__.partition(".")[0]
    if module == "numpy":
        return value.tolist()
    if module == "pyarrow" and hasattr(value, "as_py"):
        return value.as_py()
    return None if module == "pandas" and type(value).__name__ in _MISSING else value


def can_be_stored(texts: Sequence[str]) -> bool:
    """Whether all texts are valid Unicode."""
    if all(map(str.isascii, texts)):
        return True
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_block(texts: list[Any], ids: list[Any] | None) -> TextBlock | None:
    """A block of columns that hold nothing but texts; None: some value is of another kind, or a bad one."""
    if set(map(type, texts)) - {str} or not can_be_stored(texts):
        return None
    if ids is None:
        return TextBlock(texts)
    if set(map(type, ids)) - {str} or not can_be_stored(ids) or any("\x00" in row_id for row_id in ids):
        return None
    return TextBlock(texts, ids if all(ids) else [row_id or None for row_id in ids])
