"""The database: connections (`connecting`), the differences of SQLite and PostgreSQL (`dialects`), the meaning of their
errors (`faults`), the database's clock (`clock`), its `tables/` and their version (`versions`, `upgrading`,
`migrations/`), the file system of a SQLite file (`file_systems`) and the machine that uses it (`machines`), locks on
names (`name_locks`), rows packed for COPY (`binary_copy`, imported by its own name)."""

from labelmill.core.database.clock import MAX_CHUNK_DELAY_S, MAX_LEASE_S, MAX_POLL_DELAY_S, db_now, has_passed
from labelmill.core.database.connecting import (
    ALIVE_CONNECTIONS,
    DEAD_LETTER_CONNECTIONS,
    PRODUCER_CONNECTIONS,
    RECOVERY_CONNECTIONS,
    WORKER_CONNECTIONS,
    after_commit,
    connect,
    connect_to_existing,
    reading,
    writing,
)
from labelmill.core.database.faults import data_error_message, outdated, translating_errors
from labelmill.core.database.machines import HEARTBEAT_S, renew_machine_heartbeat, require_only_this_machine
from labelmill.core.database.name_locks import lock_name
from labelmill.core.database.upgrading import upgrade
from labelmill.core.database.versions import check_tables, current_revision, head_revision, revisions

__all__ = [
    "ALIVE_CONNECTIONS",
    "DEAD_LETTER_CONNECTIONS",
    "HEARTBEAT_S",
    "MAX_CHUNK_DELAY_S",
    "MAX_LEASE_S",
    "MAX_POLL_DELAY_S",
    "PRODUCER_CONNECTIONS",
    "RECOVERY_CONNECTIONS",
    "WORKER_CONNECTIONS",
    "after_commit",
    "check_tables",
    "connect",
    "connect_to_existing",
    "current_revision",
    "data_error_message",
    "db_now",
    "has_passed",
    "head_revision",
    "lock_name",
    "outdated",
    "reading",
    "renew_machine_heartbeat",
    "require_only_this_machine",
    "revisions",
    "translating_errors",
    "upgrade",
    "writing",
]
