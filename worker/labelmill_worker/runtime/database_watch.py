"""Whether this process may use the database: its tables are of this version, and no other machine is on its SQLite."""

from __future__ import annotations

import sys
import threading
import time

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseNewer, DatabaseUnavailable, DatabaseUnsuitable, LabelmillError
from labelmill.core.database import HEARTBEAT_S, check_tables, connect_to_existing, renew_machine_heartbeat
from labelmill.core.database.dialects import dialect_of
from labelmill.core.settings import Settings

log = structlog.get_logger()
_TABLES_S = 10.0  #: How soon a process that keeps running through an upgrade notices.


def check_at_start(settings: Settings) -> None:
    """End a worker whose database will not become usable by waiting; log once where it may."""
    try:
        engine = connect_to_existing(settings, max_connections=1)
        try:
            check_tables(engine)
            renew_machine_heartbeat(engine)
        finally:
            engine.dispose()
    except (DatabaseNewer, DatabaseUnsuitable) as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(error.exit_code) from error
    except LabelmillError as error:
        log.warning("no work is done until the database can be used", reason=error.message)


class DatabaseWatch:
    """Watches the database of one process, and keeps its machine's heartbeat in SQLite going."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended = threading.Event()
        self._refusal: DatabaseUnsuitable | None = None
        self._check_at = 0.0
        if dialect_of(engine).serves_one_machine:
            renew_machine_heartbeat(engine)
            threading.Thread(target=self._keep_heartbeat, name="machine-heartbeat", daemon=True).start()

    def check(self) -> None:
        """Raise DatabaseUnsuitable or DatabaseOutdated when the database may not be used. Checks every 10 s."""
        if self._refusal is not None:
            raise self._refusal
        now = time.monotonic()
        if now >= self._check_at:
            check_tables(self._engine)
            self._check_at = now + _TABLES_S

    def end(self) -> None:
        """Stop the heartbeat."""
        self._ended.set()

    def _keep_heartbeat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                renew_machine_heartbeat(self._engine)
            except DatabaseUnsuitable as error:
                if self._refusal is None:
                    log.error("no more work is done", reason=error.message)
                self._refusal = error
            except DatabaseUnavailable as error:
                log.debug("no heartbeat", reason=error.message)
            else:
                self._refusal = None
