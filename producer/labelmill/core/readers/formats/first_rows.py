"""The first rows of a file, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.files import Source
from labelmill.core.readers.unreadable import Counting, naming_what_is_read


def require_rows(
    source: Source, read: Callable[[OnBadRow], Iterable[tuple[int, dict[str, Any]]]]
) -> list[tuple[int, dict[str, Any]]]:
    """The rows that `read` gives. Raises InvalidInput, with the first problem, where there is none."""
    problems: list[BadRow] = []
    bad = Counting(problems.append)
    with naming_what_is_read(source.name, bad):
        rows = list(read(bad))
    if rows:
        return rows
    if not problems:
        raise InvalidInput(f"{source.name} holds no rows", field="source")
    first = problems[0]
    remedy = f"; {first.remedy}" if first.remedy else ""
    raise InvalidInput(
        f"no row of {source.name} can be read; the first problem is at line {first.line}: {first.reason}{remedy}"
    )
