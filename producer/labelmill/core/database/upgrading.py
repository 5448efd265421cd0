"""Upgrading the tables to this code's version, while other processes use them or upgrade them too."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database.connecting import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.versions import MIGRATIONS, current_revision, head_revision, refuse_newer

PATIENCE_S = 300.0  #: How long an upgrade waits for tables that other processes have locked.
_PAUSE_S = (1.0, 4.0)
_OTHER_UPGRADE_S = 0.5
_BUSY = {"55P03", "40P01", "SQLITE_BUSY"}

_one_upgrade = threading.Lock()


def upgrade(engine: Engine, *, patience_s: float = PATIENCE_S, report: Callable[[str], None] = lambda _: None) -> None:
    """Upgrade the tables to this code's version, if they are older. Safe from several processes at once: one does it,
    the others wait. `report` is called with what is waited for.

    Raises DatabaseOutdated for tables that a newer Labelmill made, DatabaseUnavailable.
    """
    gives_up_at = time.monotonic() + patience_s
    with _one_upgrade:  # Alembic keeps its state in the process
        while (current := current_revision(engine)) != head_revision():
            refuse_newer(current)
            try:
                with writing(engine) as connection:
                    if dialect_of(connection).may_upgrade(connection):
                        _migrate(connection)
                        continue
            except DatabaseUnavailable as error:
                if not _is_busy(error) or time.monotonic() >= gives_up_at:
                    raise
                report(f"waiting for tables that are in use{_oldest_transaction(engine)}")
                time.sleep(random.uniform(*_PAUSE_S))
            else:
                report("waiting for another upgrade")
                time.sleep(_OTHER_UPGRADE_S)


def _migrate(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and every command imports this module
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _is_busy(error: DatabaseUnavailable) -> bool:
    cause = getattr(error.__cause__, "orig", error.__cause__)
    return bool(_BUSY & {getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None)})


def _oldest_transaction(engine: Engine) -> str:
    with reading(engine) as connection:
        oldest = dialect_of(connection).oldest_transaction(connection)
    return f"; {oldest}" if oldest else ""
