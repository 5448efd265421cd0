"""Errors while a file is read: bad rows are counted, and exceptions of libraries become one sentence that names the
file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from labelmill.contracts.errors import InvalidInput, LabelmillError
from labelmill.core.readers.bad_rows import BadRow, OnBadRow


class Counting:
    """Passes bad rows on and counts them."""

    def __init__(self, on_bad_row: OnBadRow) -> None:
        self._on_bad_row = on_bad_row
        self.count = 0
        self.raised: Exception | None = None  #: The exception that `on_bad_row` raised.

    def __call__(self, bad: BadRow) -> None:
        self.count += 1
        try:
            self._on_bad_row(bad)
        except Exception as error:
            self.raised = error
            raise


@contextlib.contextmanager
def naming_what_is_read(name: str, bad: Counting) -> Iterator[None]:
    """Turn every error of reading into InvalidInput, except those that `on_bad_row` raised. Around a generator's
    `yield` it does not see exceptions of the generator's user."""
    try:
        yield
    except LabelmillError:
        raise
    except Exception as error:
        if error is bad.raised:
            raise
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InvalidInput(f"{name} cannot be read: {words}") from error
