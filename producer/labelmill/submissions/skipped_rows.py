"""Rows of a source that cannot be read and are left out: `classify --on-bad-row skip`."""

from __future__ import annotations

from sqlalchemy import insert, update
from sqlalchemy.engine import Engine

from labelmill.contracts.database import writing
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.readers import BadRow
from labelmill.contracts.states import BatchState
from labelmill.contracts.tables import BatchRow, EventRow, utc_now

_NAMED = 5  #: Of a million bad rows the first few are named; they tend to be alike.


class SkippedRows:
    """Counts bad rows, and remembers the first."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def __call__(self, bad: BadRow) -> None:
        self.count += 1
        if self.count <= _NAMED:
            self._first.append(str(bad))

    def __str__(self) -> str:
        what = "1 row was" if self.count == 1 else f"{self.count} rows were"
        more = "; …" if self.count > _NAMED else ""
        return f"{what} left out, as they cannot be read: {'; '.join(self._first)}{more}"


def record_skipped(engine: Engine, batch_no: int, batch_id: str, skipped: SkippedRows, rows: int) -> None:
    """Keep what was left out of a batch that is being submitted. Raises InvalidInput when no row is left."""
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
            event = {"job_id": batch_id, "at": utc_now(), "state": BatchState.SUBMITTING.value, "message": str(skipped)}
            connection.execute(insert(EventRow).values(event))
