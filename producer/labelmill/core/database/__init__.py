"""The database: connections (`connecting`), what SQLite and PostgreSQL do differently (`dialects`), what their faults
mean (`faults`), the database's clock (`clock`), its `tables/` and their version (`versions`, `upgrading`,
`migrations/`), where a file lies (`file_systems`) and which machine uses it (`machines`), names that one transaction
at a time changes (`name_locks`), rows packed for COPY (`binary_copy`, imported by its own name)."""

from labelmill.core.database.clock import FAR_CHUNK_S, FAR_LEASE_S, FAR_S, db_now, has_passed
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
from labelmill.core.database.faults import outdated, translating_errors, words_of_refusal
from labelmill.core.database.machines import HEARTBEAT_S, hold_machine, require_this_machine
from labelmill.core.database.name_locks import hold_name
from labelmill.core.database.upgrading import upgrade
from labelmill.core.database.versions import check_tables, current_revision, head_revision, revisions

__all__ = [
    "ALIVE_CONNECTIONS",
    "DEAD_LETTER_CONNECTIONS",
    "FAR_CHUNK_S",
    "FAR_LEASE_S",
    "FAR_S",
    "HEARTBEAT_S",
    "PRODUCER_CONNECTIONS",
    "RECOVERY_CONNECTIONS",
    "WORKER_CONNECTIONS",
    "after_commit",
    "check_tables",
    "connect",
    "connect_to_existing",
    "current_revision",
    "db_now",
    "has_passed",
    "head_revision",
    "hold_machine",
    "hold_name",
    "outdated",
    "reading",
    "require_this_machine",
    "revisions",
    "translating_errors",
    "upgrade",
    "words_of_refusal",
    "writing",
]
