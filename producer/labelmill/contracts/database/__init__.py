"""The database: connections (`connecting`), what its faults mean (`faults`), its clock (`clock`), the version of its
tables (`versions`); many rows at once (`bulk`, `binary_copy`, imported by their own names). The tables themselves are
in `contracts/tables/`."""

from labelmill.contracts.database.clock import FAR_CHUNK_S, FAR_LEASE_S, FAR_S, db_now, has_passed
from labelmill.contracts.database.connecting import BUSY_TIMEOUT_MS, connect, reading, shorten_log, writing
from labelmill.contracts.database.faults import outdated, translating_errors
from labelmill.contracts.database.versions import check_tables, current_revision, head_revision, revisions, upgrade

__all__ = [
    "BUSY_TIMEOUT_MS",
    "FAR_CHUNK_S",
    "FAR_LEASE_S",
    "FAR_S",
    "check_tables",
    "connect",
    "current_revision",
    "db_now",
    "has_passed",
    "head_revision",
    "outdated",
    "reading",
    "revisions",
    "shorten_log",
    "translating_errors",
    "upgrade",
    "writing",
]
