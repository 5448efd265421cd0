"""The database: connections (`connecting`, `postgres`, `sqlite`), what its faults mean (`faults`), its clock (`clock`),
the version of its tables (`versions`, `upgrading`), where a file lies (`file_systems`) and which machine uses it
(`machines`), names that one transaction at a time changes (`name_locks`); many rows at once (`bulk`, `binary_copy`,
imported by their own names). The tables themselves are in `contracts/tables/`."""

from labelmill.core.database.clock import FAR_CHUNK_S, FAR_LEASE_S, FAR_S, db_now, has_passed
from labelmill.core.database.connecting import (
    ALIVE_CONNECTIONS,
    DEAD_LETTER_CONNECTIONS,
    PRODUCER_CONNECTIONS,
    RECOVERY_CONNECTIONS,
    WORKER_CONNECTIONS,
    connect,
    connect_to_existing,
    reading,
    writing,
)
from labelmill.core.database.faults import outdated, translating_errors, words_of_refusal
from labelmill.core.database.machines import HEARTBEAT_S, hold_machine, require_this_machine
from labelmill.core.database.name_locks import hold_name
from labelmill.core.database.postgres import is_pooled
from labelmill.core.database.sqlite import BUSY_TIMEOUT_MS, shorten_log
from labelmill.core.database.upgrading import upgrade
from labelmill.core.database.versions import check_tables, current_revision, head_revision, revisions

__all__ = [
    "ALIVE_CONNECTIONS",
    "BUSY_TIMEOUT_MS",
    "DEAD_LETTER_CONNECTIONS",
    "FAR_CHUNK_S",
    "FAR_LEASE_S",
    "FAR_S",
    "HEARTBEAT_S",
    "PRODUCER_CONNECTIONS",
    "RECOVERY_CONNECTIONS",
    "WORKER_CONNECTIONS",
    "check_tables",
    "connect",
    "connect_to_existing",
    "current_revision",
    "db_now",
    "has_passed",
    "head_revision",
    "hold_machine",
    "hold_name",
    "is_pooled",
    "outdated",
    "reading",
    "require_this_machine",
    "revisions",
    "shorten_log",
    "translating_errors",
    "upgrade",
    "words_of_refusal",
    "writing",
]
