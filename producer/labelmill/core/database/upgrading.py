"""How the tables come to the version that this code needs, while others use them and while others upgrade too."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database.connecting import reading, writing
from labelmill.core.database.versions import MIGRATIONS, current_revision, head_revision, refuse_newer

PATIENCE_S = 300.0  #: Tables that others do not let go of are waited for so long.
_LOCK_TIMEOUT_S = 3  #: Whoever comes after a waiting upgrade waits behind it: no longer than this.
_PAUSE_S = (1.0, 4.0)
_OTHER_UPGRADE_S = 0.5
_UPGRADE_LOCK = 7_140_521  # an advisory lock of PostgreSQL; any fixed number
_BUSY = {"55P03", "40P01", "SQLITE_BUSY"}

_one_upgrade = threading.Lock()


def upgrade(engine: Engine, *, patience_s: float = PATIENCE_S, report: Callable[[str], None] = lambda _: None) -> None:
    """Bring the tables to this code's version. Does nothing when they are; safe from several processes at once: one
    does it, the others wait. `report` hears what is waited for.

    Raises DatabaseOutdated for tables that a newer Labelmill made, DatabaseUnavailable.
    """
    gives_up_at = time.monotonic() + patience_s
    with _one_upgrade:  # Alembic keeps its state in the process
        while (current := current_revision(engine)) != head_revision():
            refuse_newer(current)
            try:
                with writing(engine) as connection:
                    if _may_upgrade(connection):
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


def _may_upgrade(connection: Connection) -> bool:
    """Whether no other process upgrades now. Raises DatabaseUnavailable when this user may not."""
    if connection.dialect.name != "postgresql":
        return True  # the transaction alone may write
    _require_rights(connection)
    # of the transaction, not of the session: a pooler may hand the session to somebody else
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))  # a role's own is meant for its queries
    return bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK}))


def _migrate(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and every command imports this module
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


_RIGHTS = text("""
    SELECT quote_ident(current_user) AS me, quote_ident(current_schema()) AS schema,
           coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
           (SELECT tableowner FROM pg_tables WHERE tablename = 'alembic_version' AND schemaname = current_schema()
            AND NOT pg_has_role(tableowner, 'USAGE')) AS owner
""")


def _require_rights(connection: Connection) -> None:
    rights = connection.execute(_RIGHTS).one()
    if not rights.may_create:
        schema = rights.schema or "public"
        raise DatabaseUnavailable(
            f"{rights.me} may not make tables in the schema {schema}: let the database's owner run "
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {rights.me}"
        )
    if rights.owner is not None:
        raise DatabaseUnavailable(
            f"the tables belong to {rights.owner}, and {rights.me} may not change them: "
            f"run `labelmill db upgrade` as {rights.owner}"
        )


def _is_busy(error: DatabaseUnavailable) -> bool:
    cause = getattr(error.__cause__, "orig", error.__cause__)
    return bool(_BUSY & {getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None)})


_OLDEST = text("""
    SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds FROM pg_stat_activity
    WHERE xact_start IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
    ORDER BY xact_start LIMIT 1
""")


def _oldest_transaction(engine: Engine) -> str:
    if engine.dialect.name != "postgresql":
        return ""
    with reading(engine) as connection:
        oldest = connection.execute(_OLDEST).first()
    return f"; the oldest transaction is {oldest.seconds} s old (process {oldest.pid})" if oldest else ""
