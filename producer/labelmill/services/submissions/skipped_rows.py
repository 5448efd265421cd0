"""Unreadable rows of a source: refused, or skipped and counted where `on_bad_row` is `skip`."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import as_option, named, write_names
from labelmill.contracts.states import BatchState
from labelmill.core.database import writing
from labelmill.core.database.tables import BatchRow
from labelmill.core.jobs import events
from labelmill.core.readers import BadRow, TextBlock

_NAMED = 5  #: The number of bad rows that are named; they tend to be alike.


_MAX_REFUSED = 1000  #: Bad rows before any good one, after which no good one is looked for.


class RefusedRows:
    """Refuses a source that has a bad row, with a remedy: skipping rows is proposed only if other rows are readable."""

    def __init__(self) -> None:
        self._first: BadRow | None = None
        self._count = 0

    def __call__(self, bad: BadRow) -> None:
        self._first = self._first or bad
        self._count += 1
        if self._count >= _MAX_REFUSED:
            raise self._refusal(self._first, others_are_good=False)

    def none_in(self, blocks: Iterator[TextBlock]) -> Iterator[TextBlock]:
        """The same blocks. Raises InvalidInput as soon as a bad row was met on the way to one."""
        is_first = True
        for block in blocks:
            if self._first is not None:
                raise self._refusal(self._first, others_are_good=True)
            yield block
            is_first = False
        if self._first is not None:
            raise self._refusal(self._first, others_are_good=not is_first)

    def _refusal(self, first: BadRow, *, others_are_good: bool) -> InvalidInput:
        if first.remedy:
            return InvalidInput(f"{first}; {first.remedy}")
        if others_are_good:
            return InvalidInput(f"{first}; {named('on_bad_row', 'skip')} leaves out what cannot be read")
        rows = "the only row" if self._count == 1 else f"none of the first {self._count} rows"
        cannot = "cannot" if self._count == 1 else "can"
        return InvalidInput(f"{rows} {cannot} be read: {first}")


class SkippedRows:
    """Counts bad rows and their lines, and remembers the first ones."""

    def __init__(self) -> None:
        self.count = 0
        self.lines = 0
        self._first: list[str] = []
        self._remedy = ""

    def __call__(self, bad: BadRow) -> None:
        self.count += 1
        self.lines += bad.lines
        self._remedy = self._remedy or bad.remedy
        if self.count <= _NAMED:
            self._first.append(str(bad))

    def __str__(self) -> str:
        what = "1 row was" if self.count == 1 else f"{self.count} rows were"
        more = "; …" if self.count > _NAMED else ""
        lines = f" ({self.lines} lines)" if self.lines > self.count else ""
        remedy = f"; {self._remedy}" if self._remedy else ""
        return f"{what} left out{lines}, as they cannot be read: {'; '.join(self._first)}{more}{remedy}"


def record_skipped(engine: Engine, batch_no: int, batch_id: str, skipped: SkippedRows, rows: int) -> None:
    """Record the skipped rows of a batch that is being submitted. Raises InvalidInput when no row is left."""
    if not skipped.count:
        return
    if not rows:
        raise InvalidInput(f"there is no row that can be read: {skipped}")
    with writing(engine) as connection:
        done = connection.execute(
            update(BatchRow)
            .where(BatchRow.no == batch_no, BatchRow.state == BatchState.SUBMITTING.value)
            .values(skipped=skipped.count)
        ).rowcount
        if done:
            events.note(connection, batch_id, write_names(str(skipped), as_option))
