"""Writing what was gathered of several chunks in one transaction, until it is written or the database was away for too
long. Belongs to one thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import translating_errors
from labelmill.core.money.prices import LISTED, PriceList
from labelmill_worker.store.commits import DATABASE_PAUSE_S, PATIENCE_S, was_committed
from labelmill_worker.store.progress import Entry, Standing, record_entries

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Written:
    """A transaction that was committed."""

    standings: Sequence[Standing]  #: Of each entry's chunk, in their order.
    asked_at: float  #: When it began, by the monotonic clock: leases count from then.


class EntryWriter:
    """Holds a connection of its own."""

    def __init__(self, engine: Engine, lease_s: float, prices: PriceList = LISTED) -> None:
        self._engine = engine
        self._prices = prices
        self._lease_s = lease_s
        self._connection: Connection | None = None

    def write(self, entries: Sequence[Entry]) -> Written:
        """Write entries, once: a commit whose answer is lost is looked for first. Raises DatabaseUnavailable."""
        in_doubt: str | None = None  # the transaction that may have been committed, though its answer is lost
        standings: Sequence[Standing] = []
        # when the transaction began that was committed in the end
        asked_at = began_at = tried_at = time.monotonic()
        give_up_at = began_at + PATIENCE_S
        while True:
            try:
                with translating_errors():
                    self._connection = connection = self._connection or self._engine.connect()
                    if in_doubt is not None and was_committed(connection, in_doubt):
                        break
                    in_doubt, asked_at = None, tried_at
                    with connection.begin():
                        recorded = record_entries(connection, entries, self._lease_s, self._prices)
                        standings, in_doubt = recorded.standings, recorded.transaction
                break
            except DatabaseUnavailable as gone:
                self.disconnect()
                if tried_at >= give_up_at:
                    raise
                if tried_at == began_at:
                    log.warning("answers wait for the database", reason=gone.message)
                time.sleep(DATABASE_PAUSE_S)
                tried_at = time.monotonic()
            except Exception:
                self.disconnect()
                raise
        if tried_at > began_at:
            log.info("answers are written again", after_s=round(time.monotonic() - began_at, 1))
        return Written(standings, asked_at)

    def disconnect(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001 - it is broken already
                log.debug("a broken connection to the database was dropped")
